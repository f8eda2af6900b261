"""Reward functions of the user in their own processes: what they may do, and what it costs."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job_rewards import opened_python, sample
from tests.conftest import wait_until_gone

from ytrain.rl.rewards import Failure
from ytrain_api.errors import SpecError

pytestmark = pytest.mark.unit

MISDEEDS = """
import ctypes, math, numpy, os, sys, time

class Unprintable(Exception):
    def __str__(self):
        raise ValueError

def noise():
    os.write(1, b"to descriptor 1\\n")
    for _ in range(40):
        print("x" * 100_000)
        print("y" * 100_000, file=sys.stderr)
    return 0.5

def write_into_the_channel():
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b'{"reward": "lies"}\\n')
        except OSError:
            pass
    time.sleep(600)

def unprintable():
    raise Unprintable

def score(prompt, answer, record):
    return eval(answer)
"""

CASES = [
    ("1", 1.0),
    ("-0.25", -0.25),
    ("True", 1.0),
    ("numpy.float32(0.5)", 0.5),
    ("numpy.int64(3)", 3.0),
    ("numpy.bool_(True)", 1.0),
    ("numpy.array(0.25)", 0.25),
    ("numpy.array([0.25])", "reward.py:score returned a ndarray, and not a number"),
    ("numpy.float64('nan')", "reward.py:score returned nan, and not a finite number"),
    ("1e300", "reward.py:score returned 1e+300, beyond the 1e+12 that can be learned from"),
    ("-1e13", "reward.py:score returned -1e+13, beyond the 1e+12 that can be learned from"),
    ("noise()", 0.5),
    ("sys.stdin.read() == ''", 1.0),
    ("None", "reward.py:score returned None, and not a number"),
    ("'1.0'", "reward.py:score returned a str, and not a number"),
    ("[1.0, 2.0]", "reward.py:score returned a list, and not a number"),
    ("math.nan", "reward.py:score returned nan, and not a finite number"),
    ("-math.inf", "reward.py:score returned -inf, and not a finite number"),
    ("10 ** 400", "reward.py:score raised OverflowError"),
    ("1 / 0", "reward.py:score raised ZeroDivisionError at reward.py:27"),
    ("unprintable()", "reward.py:score raised Unprintable at reward.py:24"),
    ("sys.exit(0)", "reward.py:score raised SystemExit at reward.py:27"),
    ("os._exit(3)", "reward.py:score ended its process (exit code 3)"),
    ("os.abort()", "reward.py:score ended its process (killed by SIGABRT)"),
    ("ctypes.string_at(0)", "reward.py:score ended its process (killed by SIGSEGV)"),
    ("write_into_the_channel()", "reward.py:score ended its process (killed by SIGKILL)"),
]
TOO_LONG = "reward.py:score took longer than 3 s and was stopped"
SLOW_CASES = [
    ("time.sleep(600)", TOO_LONG),
    ("__import__('re').match('(a+)+b', 'a' * 40)", TOO_LONG),
    ("1", 1.0),
]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("cases", "timeout"), [(CASES, "60s"), (SLOW_CASES, "3s")], ids=["ended", "slow"])
def test_each_misdeed_costs_its_own_sample(
    tmp_path: Path, processes: int, cases: list[tuple[str, float | str]], timeout: str
) -> None:
    with opened_python(MISDEEDS, tmp_path, timeout=timeout, processes=processes) as service:
        results = service.score([sample(answer) for answer, _ in cases])
        assert service.score([]) == []
    told = [result.reason if isinstance(result, Failure) else result for result in results]
    assert told == [expected for _, expected in cases]


def test_a_second_answer_is_nobody_elses_reward(tmp_path: Path) -> None:
    with opened_python("import os\ndef score(answer, **_):\n    return eval(answer)", tmp_path) as service:
        assert service.score([sample("os.fork() * 0 + 1")]) == [1.0]
        (result,) = service.score([sample("2")])
        assert result == 2.0 or isinstance(result, Failure)


def test_a_failure_shows_the_value_the_message_and_the_last_output(tmp_path: Path) -> None:
    code = "import os\ndef score(prompt, answer, record):\n    print('before', flush=True)\n    return eval(answer)"
    with opened_python(code, tmp_path) as service:
        results = service.score([sample("'no'"), sample("int('x')"), sample("os._exit(1)")])
    assert [result.detail for result in results] == [
        "'no'",
        "ValueError: invalid literal for int() with base 10: 'x'",
        "last output: before",
    ]


def test_functions_get_prompt_answer_and_record_by_name(tmp_path: Path) -> None:
    code = (
        "def score(record, answer, prompt):\n    return (prompt, answer, record) == ('2 + 2 =', '4\\ud800', {'n': [1]})"
    )
    with opened_python(code, tmp_path) as service:
        assert service.score([sample("4\ud800", {"n": [1]})]) == [1.0]


def test_records_that_json_cannot_hold_are_failures(tmp_path: Path) -> None:
    with opened_python("def score(**_): return 1", tmp_path) as service:
        reasons = service.score([sample("4", {"x": float("nan")})])
    assert reasons[0].reason == "the record cannot be written as JSON"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import nowhere",
            "importing reward.py raised ModuleNotFoundError at reward.py:1: .*No module named 'nowhere'",
        ),
        ("x = 1\ndef score(:", "importing reward.py raised SyntaxError at reward.py:2"),
        ("raise SystemExit(2)", "importing reward.py raised SystemExit at reward.py:1"),
        ("print('oh')\nimport os; os._exit(4)", r"reward.py: importing it ended the process \(exit code 4\)"),
        ("def grade(a): 0\ndef mark(a): 0", r"has no function 'score' \(functions there: grade, mark\)"),
        ("score = 3", r"has no function 'score' \(functions there: none\)"),
        (
            "def score(prompt, answer): 0",
            r"score\(prompt, answer\) in reward.py does not take prompt, answer and record",
        ),
        ("def score(a, b, c): 0", r"score\(a, b, c\) in reward.py does not take prompt, answer and record"),
        ("async def score(prompt, answer, record): 0", "is async; write it as a plain def"),
    ],
)
def test_a_function_that_cannot_be_called_is_told_at_the_start(tmp_path: Path, code: str, message: str) -> None:
    field = re.escape("spec.rl.reward.python.source: configmap://rewards/reward.py:score: ")
    with pytest.raises(SpecError, match=field + ".*" + message), opened_python(code, tmp_path):
        pass


def test_no_secret_reaches_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("YTRAIN_TOKEN", "secret")
    code = (
        "import os\n"
        "def score(prompt, answer, record):\n"
        "    threads = os.environ['OMP_NUM_THREADS'] == '1'\n"
        "    return threads and not [value for value in os.environ.values() if 'secret' in value]"
    )
    with opened_python(code, tmp_path) as service:
        assert service.score([sample("")]) == [1.0]


TELL_PIDS = """
import os, subprocess
child = subprocess.Popen(["sleep", "600"])
def score(prompt, answer, record):
    with open(answer, "a") as file:
        file.write(f"{os.getpid()} {child.pid} ")
    if record:
        while True:
            pass
    return 1
"""


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with opened_python(TELL_PIDS, tmp_path, timeout="5s") as service:
        assert service.score([sample(str(told))]) == [1.0]
        assert isinstance(service.score([sample(str(told), {"hang": True})])[0], Failure)
        assert service.score([sample(str(told))]) == [1.0]
    pids = told.read_text().split()
    assert len(set(pids)) == 4
    wait_until_gone(map(int, pids))
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


TRAINER = """
import sys
from pathlib import Path
from ytrain.rl.rewards import Sample, open_rewards
from ytrain.sources import Sources
from ytrain_api.rl import Reward
folder = Path(sys.argv[1])
sources = Sources(claims={}, config_maps={}, base_dir=folder, scratch=folder, cache=folder)
reward = Reward.model_validate({"python": {"source": "file://./reward.py:score", "timeout": "1h"}})
with open_rewards(reward, sources, processes=1) as service:
    service.score([Sample("", str(folder / "pids"), {"hang": True}, 1)])
"""


def test_processes_end_with_a_trainer_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(TELL_PIDS)
    told = tmp_path / "pids"
    with subprocess.Popen([sys.executable, "-c", TRAINER, str(tmp_path)]) as trainer:
        while not told.exists() or len(told.read_text().split()) < 2:
            assert trainer.poll() is None
            time.sleep(0.01)
        trainer.kill()
    wait_until_gone(map(int, told.read_text().split()))
