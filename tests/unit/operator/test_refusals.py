"""What the API server has against a job's children becomes a condition; a launcher that is slow holds nobody up."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import ValidationError
from small_cluster import START, SmallCluster, job_object

from ytrain_api.protocol import LauncherStatus
from ytrain_operator.cache import Key
from ytrain_operator.kube import ApiError
from ytrain_operator.launcher_answers import Launcher, LauncherAnswers
from ytrain_operator.observed import observed_job
from ytrain_operator.status.refusal import named, unknown_spec
from ytrain_operator.status.summary import with_problem
from ytrain_operator.timestamps import to_text
from ytrain_operator.work_queue import WorkQueue

pytestmark = pytest.mark.unit

QUOTA = 'pods "bot-worker-0" is forbidden: exceeded quota: gpus, requested: pods=1, used: pods=1, limited: pods=1'
SECURITY = (
    'pods "bot-worker-0" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'
)


@pytest.mark.parametrize(
    ("status", "message", "reason", "stalled"),
    [
        (403, QUOTA, "QuotaExceeded", False),
        (403, SECURITY, "PodSecurity", True),
        (403, 'User "x" cannot create resource "pods" in API group ""', "Forbidden", True),
        (403, 'namespace "a" is forbidden: because it is being terminated', "NamespaceTerminating", False),
        (422, 'Pod "bot-worker-0" is invalid: spec.containers[0].image: Required value', "Refused", True),
    ],
)
def test_refusals_have_names_and_keep_the_servers_words(status: int, message: str, reason: str, stalled: bool) -> None:
    problem = named(status, message)
    assert (problem.reason, problem.stalled) == (reason, stalled)
    assert message in problem.message


FORMER = (
    'Secret "bot-ytrain" is invalid: metadata.ownerReferences: Invalid value: []: Only one reference can have '
    'Controller set to true. Found "true" in references for YTrainJob/bot and YTrainJob/bot'
)


@pytest.mark.parametrize(
    ("status", "message", "passing"),
    [
        (409, 'the object "bot-ytrain" has been modified', True),
        (422, FORMER, True),
        (422, 'Pod "bot-worker-0" is invalid: spec.containers[0].image: Required value', False),
        (403, QUOTA, False),
        (403, 'pods "bot-worker-0" is forbidden: error looking up service account team/default', True),
        (500, "failed to create typed patch object: .spec.nodes: field not declared in schema", False),
        (503, "etcd leader changed", True),
        (None, "the API server does not answer", True),
    ],
)
def test_what_passes_is_tried_again_soon(status: int | None, message: str, passing: bool) -> None:
    assert ApiError(status, message).passing is passing


def test_a_refusal_shows_in_the_conditions() -> None:
    cluster = SmallCluster()
    observed, plan = cluster.observed(), cluster.plan()
    assert plan.status is not None
    for message, stalled in ((QUOTA, "False"), (SECURITY, "True")):
        written = with_problem(plan.status, observed, named(403, message))
        conditions = {each.type: each for each in written.conditions}
        assert conditions["Ready"].status == "False"
        assert message in conditions["Ready"].message
        assert conditions["Stalled"].status == stalled


def test_a_job_of_a_newer_version_says_that_it_is_not_understood() -> None:
    raw = job_object()
    raw["spec"]["novelty"] = 1
    with pytest.raises(ValidationError) as caught:
        observed_job(raw, START)
    status = unknown_spec(raw, caught.value, START)
    stalled = next(each for each in status["conditions"] if each["type"] == "Stalled")
    assert stalled["status"] == "True"
    assert "novelty" in stalled["message"]
    later = unknown_spec({**raw, "status": status}, caught.value, START + timedelta(hours=1))
    assert later == status, "written once"


def test_an_operator_that_does_not_understand_a_job_forgets_nothing_of_it() -> None:
    """A newer operator wrote its status, then the chart was rolled back; later it is upgraded again."""
    running, done = SmallCluster().trained(), SmallCluster().trained()
    done.end_pod("bot-launcher", 0, message='{"exitCode": 0, "message": "done"}')
    done.settle()
    for cluster in (running, done):
        raw = {**cluster.job, "spec": {**cluster.job["spec"], "novelty": 1}}
        raw["status"] = {**cluster.status, "noveltyToo": 1}
        with pytest.raises(ValidationError) as caught:
            observed_job(raw, cluster.now)
        status = unknown_spec(raw, caught.value, cluster.now)
        assert {**status, "conditions": []} == {**raw["status"], "conditions": []}
        cluster.job["status"] = {name: value for name, value in status.items() if name != "noveltyToo"}
    done.pods.clear()
    assert done.observed().finished
    assert done.plan().pods == ()
    assert running.condition("Stalled").reason == "UnknownSpec"


KEY = Key("team", "bot")
LAUNCHER = Launcher("launcher-1", "10.0.0.1", "t")


class SlowLauncher:
    """A launcher that answers once it is released."""

    def __init__(self) -> None:
        self.told = SmallCluster().trained().launcher_status
        self.release = asyncio.Event()
        self.queue = WorkQueue[Key]()
        self.answers = LauncherAnswers(self._ask, self.queue)

    def followed(self) -> LauncherStatus | None:
        return self.answers.follow(KEY, LAUNCHER, 1000.0)

    async def _ask(self, _address: str, _token: str) -> LauncherStatus | None:
        await self.release.wait()
        return self.told


def test_nobody_waits_for_a_slow_launcher_unless_a_worker_ended() -> None:
    async def run() -> None:
        slow = SlowLauncher()
        assert slow.followed() is None
        waiting = asyncio.create_task(slow.answers.fresh(KEY))
        slow.release.set()
        assert await waiting == slow.told
        assert slow.followed() == slow.told
        slow.answers.leave_all()

    asyncio.run(run())


def test_the_first_answer_is_waited_for_and_wakes_nobody_who_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ytrain_operator.launcher_answers.FIRST_SECONDS", 60.0)

    async def run() -> None:
        slow = SlowLauncher()
        slow.followed()
        waiting = asyncio.create_task(slow.answers.first(KEY))
        await asyncio.sleep(0)  # it begins to wait
        slow.release.set()
        assert await waiting == slow.told
        assert not len(slow.queue)
        slow.answers.leave_all()

    asyncio.run(run())


def test_a_launcher_that_is_slow_at_first_is_not_waited_for_and_wakes_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ytrain_operator.launcher_answers.FIRST_SECONDS", 0.0)

    async def run() -> None:
        slow = SlowLauncher()
        slow.followed()
        assert await slow.answers.first(KEY) is None
        slow.release.set()
        assert (await asyncio.wait_for(slow.queue.get(), 60))[0] == KEY
        assert await slow.answers.first(KEY) == slow.told
        slow.answers.leave_all()

    asyncio.run(run())


def test_a_launcher_that_did_not_answer_is_not_waited_for_again() -> None:
    async def run() -> None:
        launcher, key = Launcher("launcher-1", "10.0.0.1", "t"), Key("team", "bot")

        async def ask(_address: str, _token: str) -> LauncherStatus | None:
            return None

        answers = LauncherAnswers(ask, WorkQueue[Key]())
        answers.follow(key, launcher, 1000.0)
        assert await answers.first(key) is None
        again = asyncio.create_task(answers.first(key))
        await asyncio.sleep(0)  # one round of the loop is all that it takes
        assert again.done()
        answers.leave_all()

    asyncio.run(run())


def test_a_launchers_job_is_woken_by_news_alone() -> None:
    async def run() -> None:
        cluster = SmallCluster().trained()
        told = cluster.launcher_status
        assert told is not None and told.progress is not None
        later = told.model_copy(update={"progress": told.progress.model_copy(update={"updated_at": to_text(START)})})
        further = told.model_copy(update={"progress": told.progress.model_copy(update={"step": 11})})
        answers_in_turn = [told, later, later, further, None]
        woken: list[LauncherStatus | None] = []
        key, asked = Key("team", "bot"), asyncio.Semaphore(0)
        launcher = Launcher("launcher-1", "10.0.0.1", "t")

        class Queue(WorkQueue[Key]):
            def add(self, key: Key, *, first: bool = False) -> None:
                woken.append(answers.follow(key, launcher, 0.0))
                super().add(key, first=first)

        async def ask(_address: str, _token: str) -> LauncherStatus | None:
            asked.release()
            if not answers_in_turn:
                await asyncio.Event().wait()
            return answers_in_turn.pop(0)

        answers = LauncherAnswers(ask, Queue())
        answers.follow(key, launcher, 0.0)
        for _ in range(6):
            await asked.acquire()
        assert woken == [told, further, None]
        answers.leave_all()

    asyncio.run(run())
