"""Stop signals: what a handler may do while the main thread is in the middle of something."""

import signal
import threading

import pytest

from ytrain.training.stop import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_told_of_though_the_main_thread_holds_what_telling_needs(number: signal.Signals) -> None:
    """Telling takes a lock that cannot be taken twice, as a pipe's or a buffered file's."""
    lock, told = threading.Lock(), list[str]()

    def announce(text: str) -> None:
        assert lock.acquire(timeout=60), "waits for the thread that it interrupted"
        told.append(text)
        lock.release()

    with stop_on_signals(announce) as stop:
        assert not stop
        with lock:
            signal.raise_signal(number)
            assert stop.signal is number
    assert told == [f"{number.name}: saving at the end of this step; once more ends at once without saving"]
