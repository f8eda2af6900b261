"""What is worked on when, and what is known of the cluster when news come late, twice or not at all."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from small_cluster import SmallCluster, job_object

from ytrain_api.errors import SpecError
from ytrain_operator.cache import Cache, Key
from ytrain_operator.settings import Settings, load_settings
from ytrain_operator.work_queue import REST, WorkQueue

pytestmark = pytest.mark.unit

KEY = Key("team", "bot")


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


@in_a_loop
async def test_a_key_waits_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert [(await queue.get())[0] for _ in range(2)] == ["a", "b"]
    assert len(queue) == 0


@in_a_loop
async def test_a_key_is_worked_on_by_one_and_comes_again_if_it_changed_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done("a", again_after=1000)
    assert (await queue.get())[0] == "a"


@in_a_loop
async def test_an_early_call_replaces_a_late_one() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.done("a", again_after=1.5 * REST)
    queue.add("a")
    await queue.get()
    queue.done("a")
    queue.add("b")
    await queue.get()
    queue.done("b", again_after=2 * REST)
    assert (await queue.get())[0] == "b", "the first call's timer went with it"


@in_a_loop
async def test_news_that_come_while_a_key_rests_are_one_more_turn_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.done("a")
    for _ in range(3):
        queue.add("a")
        await asyncio.sleep(0)
    clock += 0.99 * REST
    queue.add("b")
    await asyncio.sleep(0)
    assert (await queue.get())[0] == "b"
    assert len(queue) == 0
    clock += 0.01 * REST
    assert (await queue.get())[0] == "a"
    assert len(queue) == 0


@in_a_loop
async def test_some_keys_come_before_all_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("old")
    queue.add("new", first=True)
    queue.add("newer", first=True)
    assert [(await queue.get())[0] for _ in range(3)] == ["new", "newer", "old"]


@in_a_loop
async def test_a_failure_comes_again_by_itself() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.failed("a")
    assert len(queue) == 0
    assert (await asyncio.wait_for(queue.get(), 60))[0] == "a"


@in_a_loop
async def test_a_long_queue_stands_only_if_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
    queue: WorkQueue[int] = WorkQueue()
    assert queue.stands() == 0
    for key in range(5000):
        queue.add(key)
    for _ in range(50):
        clock += 10
        await queue.get()
    assert queue.stands() == 0, "each waits for minutes, but they are worked on"
    clock += 130
    assert queue.stands() == 130


def pod(version: int, *, uid: str = "p1") -> dict[str, Any]:
    cluster = SmallCluster()
    cluster.reconcile()
    raw = cluster.pods["bot-worker-0"]
    raw["metadata"] |= {"uid": uid, "resourceVersion": str(version)}
    return raw


def job(version: int, *, uid: str = "11111111-2222") -> dict[str, Any]:
    raw = job_object(uid=uid)
    raw["metadata"]["resourceVersion"] = str(version)
    return raw


def test_older_news_do_not_replace_newer() -> None:
    cache = Cache()
    cache.put_job(job(5) | {"status": {"phase": "Running"}})
    cache.put_job(job(4))
    assert cache.jobs[KEY].phase == "Running"
    cache.put_pod(pod(7))
    cache.put_pod(pod(6) | {"status": {"phase": "Failed"}})
    assert [each.phase for each in cache.pods(KEY)] == ["Pending"]


def test_what_was_deleted_does_not_come_back_by_late_news() -> None:
    cache = Cache()
    cache.put_pod(pod(5))
    cache.drop_pod(pod(9))
    cache.put_pod(pod(8))
    assert cache.pods(KEY) == ()
    cache.drop_job(job(5))
    cache.put_job(job(4))
    assert KEY not in cache.jobs


def test_the_end_of_a_former_job_does_not_take_the_new_one() -> None:
    cache = Cache()
    cache.put_job(job(5, uid="new"))
    cache.drop_job(job(4, uid="old"))
    assert cache.jobs[KEY].uid == "new"


def test_a_list_shows_what_a_watch_missed() -> None:
    cache = Cache()
    cache.put_job(job(5))
    cache.put_pod(pod(6))
    assert cache.keep_jobs({"11111111-2222"}, 10, None) == set()
    assert cache.keep_pods(set(), 5, None) == set(), "it came after the list"
    assert cache.keep_pods(set(), 10, "elsewhere") == set()
    assert cache.keep_pods(set(), 10, None) == {KEY}
    assert cache.pods(KEY) == ()


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("namespaces: [a]\njobs: {image: r/x:1, runAsUser: null}\nlifecycle: {graceSeconds: 5}\n")
    settings = load_settings(path)
    assert (settings.namespaces, settings.jobs.image, settings.jobs.run_as_user) == (["a"], "r/x:1", None)
    assert settings.lifecycle.grace_seconds == 5
    path.write_text("")
    assert load_settings(path) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("jobs: {imgae: x}", "jobs.imgae"),
        ("workers: 0", "workers"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=says):
        load_settings(path)
