"""A launcher and its workers over HTTP: what is trained, what is survived, and who is turned away."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from run_folders import course, steps_written
from tests.conftest import write_chats
from tests.faults.conftest import Machines, alive, job, wait_until
from tests.faults.test_ranks import assert_as_undisturbed, weights

pytestmark = pytest.mark.faults

STORM_KILLS = int(os.environ.get("YTRAIN_STORM_KILLS", "5"))
"""Each comes once the job has saved again."""
LONG = {"optimization__epochs": 80 * STORM_KILLS, "checkpoint__everySteps": 40}


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """The run folder of the long job, trained by two ranks without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed-long")
    write_chats(folder / "chats.jsonl", 20)
    machines = Machines(folder)
    machines.here(job(machines, model_folder, **LONG), 2).expect(0)
    machines.close()
    return machines.run


def ask(machines: Machines, path: str, *, token: str | None = None, data: bytes | None = None) -> tuple[int, str]:
    """Status and text of an answer."""
    headers = {"Authorization": f"Bearer {machines.token.read_text() if token is None else token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{machines.port}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def told(machines: Machines) -> dict[str, Any]:
    """What the launcher tells of the job; nothing while it does not answer."""
    time.sleep(0.2)  # from one address, more would use up the workers' share of requests
    try:
        code, text = ask(machines, "/v1/progress")
    except urllib.error.URLError:
        return {}
    status: dict[str, Any] = json.loads(text) if code == 200 else {}
    return status


def ready(machines: Machines) -> int:
    """Workers that the launcher sees."""
    return int(told(machines).get("workers", {}).get("ready", 0))


def device_seconds(status: dict[str, Any]) -> int:
    return sum(status["usage"]["deviceSeconds"].values())


def test_agents_and_launcher_are_killed_and_nothing_changes(
    machines: Machines, model_folder: Path, undisturbed_long: Path
) -> None:
    file = job(machines, model_folder, workers=2, **LONG)
    launcher = machines.launcher(file)
    workers = [machines.worker(0), machines.worker(1)]
    workers[0].until(lambda: steps_written(machines.run) >= 12)

    # The launcher: training does not stop.
    launcher.send(signal.SIGKILL).expect(-signal.SIGKILL)
    ranks = workers[0].ranks() + workers[1].ranks()
    before = steps_written(machines.run)
    workers[0].until(lambda: steps_written(machines.run) > before)
    launcher = machines.launcher(file).until_it_says("generation 1: running")
    assert workers[0].ranks() + workers[1].ranks() == ranks
    wait_until(lambda: ready(machines) == 2, lambda: launcher.output)
    status = json.loads(ask(machines, "/v1/progress")[1])
    assert (status["state"], status["generation"]) == ("Running", 1)

    # An agent: its ranks go with it, another one takes its place.
    below = workers[1].descendants()
    workers[1].send(signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in below), lambda: f"{below} are left")
    workers[1] = machines.worker(1)
    for process in (launcher, *workers):
        process.expect(0)
    assert "generation 2: running" in launcher.output
    assert course(machines.run) == course(undisturbed_long)
    assert weights(machines.run) == weights(undisturbed_long)


def test_a_storm_of_kills(machines: Machines, model_folder: Path, undisturbed_long: Path) -> None:
    """Ranks, agents and the launcher, one after another, chosen by chance; each once the job has moved on."""
    file = job(machines, model_folder, workers=2, **LONG)
    parties = {"launcher": machines.launcher(file), 0: machines.worker(0), 1: machines.worker(1)}
    seen: list[int] = []
    chance = random.Random(0)
    kills = 0
    while kills < STORM_KILLS:
        done = newest_step(machines.run)
        wait_until(
            lambda done=done: newest_step(machines.run) > done or not any(p.running for p in parties.values()),
            lambda: "\n".join(party.output for party in parties.values()),
        )
        if not any(party.running for party in parties.values()):
            break
        victim = chance.choice(["rank", "rank", "rank", 0, 1, "launcher"])
        seen += [pid for index in (0, 1) for pid in parties[index].descendants()]
        if victim == "rank":
            ranks = parties[0].ranks() + parties[1].ranks()
            if not ranks:
                continue
            os.kill(chance.choice(ranks), signal.SIGKILL)
        else:
            if not parties[victim].running:
                continue
            parties[victim].send(signal.SIGKILL).expect(-signal.SIGKILL)
            parties[victim] = machines.launcher(file) if victim == "launcher" else machines.worker(victim)
        kills += 1
    for party in parties.values():
        party.expect(0)
    assert kills == STORM_KILLS, "the job ended before the storm"
    assert course(machines.run) == course(undisturbed_long)
    assert weights(machines.run) == weights(undisturbed_long)
    wait_until(lambda: not any(alive(pid) for pid in seen), lambda: f"some of {seen} are left")


def newest_step(run: Path) -> int:
    """The newest checkpoint's step; kept steps that are trained again do not count as progress."""
    return max((int(path.name[5:]) for path in run.glob("checkpoints/step-*")), default=0)


def test_a_worker_that_is_stopped_stops_the_job_and_one_that_replaces_it_goes_on(
    machines: Machines, model_folder: Path, undisturbed: Path
) -> None:
    file = job(machines, model_folder, workers=2)
    launcher, workers = machines.launcher(file), [machines.worker(0), machines.worker(1)]
    workers[1].until(lambda: steps_written(machines.run) >= 25).send(signal.SIGTERM)
    for process in (launcher, *workers):
        process.expect(143)
    assert "worker 1 was asked to stop" in launcher.output
    # The same run with one worker of one rank.
    alone = job(machines, model_folder, workers=1, name="tiny")
    launcher, worker = machines.launcher(alone), machines.worker(0)
    for process in (launcher, worker):
        process.expect(0)
    assert_as_undisturbed(machines.run, undisturbed, 200)
    machines.launcher(alone).expect(0, "this job is done already")


def test_what_the_run_found_is_told_and_survives_the_launcher(machines: Machines, model_folder: Path) -> None:
    """Data and the first evaluation, then checkpoints, at last the output; and what devices were used for."""
    source = "file://./chats.jsonl"
    measured = {
        "evaluation__everySteps": 100,
        "evaluation__tasks": [{"name": "chats", "source": source, "samples": 4, "maxNewTokens": 4}],
        "evaluation__retention": [{"name": "prose", "source": source}],
        "data__validation": [{"source": source}],
    }
    file = job(machines, model_folder, workers=2, optimization__epochs=100, **measured)
    machines.launcher(file, "--spent", "1000").expect(2, "--spent 1000: write it as JSON with seconds of productive")
    launcher, workers = machines.launcher(file, "--spent", '{"lost": 1000}'), [machines.worker(0), machines.worker(1)]
    first: dict[str, Any] = {}
    wait_until(lambda: first.update(told(machines)) or "evaluation" in first, lambda: workers[0].output)
    assert "before" in first["evaluation"]["validation"]
    assert first["usage"]["deviceSeconds"]["lost"] == 1000

    before: dict[str, Any] = {}
    wait_until(lambda: before.update(told(machines)) or "checkpoint" in before, lambda: workers[0].output)
    launcher.send(signal.SIGKILL).expect(-signal.SIGKILL)
    launcher = machines.launcher(file)
    again: dict[str, Any] = {}
    wait_until(
        lambda: again.update(told(machines)) or ("checkpoint" in again and again["workers"]["ready"] == 2),
        lambda: launcher.output,
    )
    assert again["checkpoint"]["step"] >= before["checkpoint"]["step"]
    assert again["checkpoint"]["path"].startswith(str(machines.run / "checkpoints/step-"))
    assert again["data"] == first["data"]
    assert again["evaluation"]["tasks"][0]["before"] == first["evaluation"]["tasks"][0]["before"]
    assert again["usage"]["deviceSeconds"]["lost"] == 1000
    assert device_seconds(again) >= device_seconds(before)

    # The launcher ends with the job; while it waits for an agent's last report, it can be asked. It does not wait long:
    # the agent falls silent when only the output is still to be written.
    workers[1].until(lambda: measured_after(machines.run)).send(signal.SIGSTOP)
    last: dict[str, Any] = {}
    wait_until(lambda: last.update(told(machines)) or "output" in last, lambda: workers[0].output)
    workers[1].send(signal.SIGCONT)
    for process in (launcher, *workers):
        process.expect(0)
    result = json.loads((machines.run / "result.json").read_text())
    measurement = json.loads((machines.run / "evaluation.json").read_text())
    assert last["data"] == {name: result["data"][name] for name in first["data"]}
    assert (last["data"]["read"], last["data"]["skipped"]) == (20, 0)
    assert last["output"] == {
        "path": result["output"]["path"],
        "digest": result["digests"]["output"],
        "dataDigest": result["digests"]["data"],
        "configDigest": result["digests"]["config"],
    }
    assert (last["evaluation"]["step"], last["checkpoint"]["step"]) == (500, 500)
    assert last["evaluation"]["validation"]["after"] == pytest.approx(measurement["after"]["validation"]["loss"], 1e-4)
    assert last["evaluation"]["retention"][0]["after"] < last["evaluation"]["retention"][0]["before"]
    assert last["usage"]["deviceSeconds"]["productive"] > 0


def measured_after(run: Path) -> bool:
    """Whether the last evaluation is done; the output is written after it."""
    return "after" in json.loads((run / "evaluation.json").read_text())


def test_a_mounted_config_map_reaches_the_workers(machines: Machines, model_folder: Path) -> None:
    """As the kubelet mounts it: keys are links into a folder that is exchanged as a whole."""
    mounted = machines.folder / "mounted"
    (mounted / "..1").mkdir(parents=True)
    write_chats(mounted / "..1/train.jsonl", 20)
    (mounted / "..data").symlink_to("..1")
    (mounted / "train.jsonl").symlink_to("..data/train.jsonl")
    file = job(
        machines, model_folder, data__train=[{"source": "configmap://chats/train.jsonl"}], optimization__epochs=1
    )
    machines.launcher(file, "--config-map", "chats").expect(2, "--config-map chats: write it as NAME=DIR")
    parties = machines.launcher(file, "--config-map", f"chats={mounted}"), machines.worker(0)
    for party in parties:
        party.expect(0)
    assert steps_written(machines.run) == 5


def test_who_is_turned_away(machines: Machines, model_folder: Path) -> None:
    """A wrong token, an index too high, one that is taken, another job; and what is no request at all."""
    file = job(machines, model_folder, workers=2)
    launcher = machines.launcher(file).until_it_says("listening")
    wrong = machines.folder / "wrong"
    wrong.write_text("0123456789abcdef")
    strangers = [machines.worker(0, token=wrong), machines.worker(7)]
    strangers[0].expect(2, "refuses the token; give the launcher's own with --token-file")
    strangers[1].expect(2, "--index 7: the job has workers 0 to 1 (spec.workers.replicas)")
    machines.worker(0)

    wait_until(lambda: ready(machines) == 1, lambda: launcher.output)
    twin = machines.worker(0)

    report = {
        "job": "another", "index": 1, "incarnation": "x", "address": "127.0.0.1", "port": 1, "slots": 1,
        "state": "idle", "generation": 0,
    }  # fmt: skip
    assert ask(machines, "/v1/exchange", data=json.dumps(report).encode())[0] == 410
    assert ask(machines, "/v1/exchange", data=b"\x00\xff garbage")[0] == 400
    assert ask(machines, "/v1/exchange", data=json.dumps(report | {"slots": 10**9}).encode())[0] == 400
    assert ask(machines, "/v1/exchange", data=b"[" * 100_000)[0] == 400
    assert ask(machines, "/v1/exchange", data=b"x" * 3_000_000)[0] == 413
    assert ask(machines, "/v1/progress", token="")[0] == 401
    assert ask(machines, "/metrics", token="guess")[0] == 401
    assert ask(machines, "/healthz", token="")[0] == 200
    assert "ytrain_workers_ready" in ask(machines, "/metrics")[1]
    for noise in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", os.urandom(4096)):
        with socket.create_connection(("127.0.0.1", machines.port)) as connection:
            connection.sendall(noise)

    twin.expect(5, "index 0 is held by a worker at 127.0.0.1; give each worker its own --index")
    assert b" 429 " in answers_to_many(machines, 1000)
    launcher.send(signal.SIGINT).expect(143, "the launcher was interrupted; no rank was running")


def answers_to_many(machines: Machines, count: int) -> bytes:
    """What the launcher answers to requests that come all at once, however slow this process is."""
    one = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{machines.port}\r\n"
    with socket.create_connection(("127.0.0.1", machines.port)) as connection:
        connection.sendall(f"{one}\r\n".encode() * (count - 1) + f"{one}Connection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_a_worker_can_be_stopped_while_the_launcher_is_away(machines: Machines, model_folder: Path) -> None:
    """Its ranks save and it ends: a pod that is drained must not wait to be killed."""
    launcher = machines.launcher(job(machines, model_folder, optimization__epochs=1000))
    worker = machines.worker(0).until(lambda: steps_written(machines.run) >= 5)
    launcher.send(signal.SIGKILL).expect(-signal.SIGKILL)
    worker.send(signal.SIGTERM).expect(143)
    assert newest_step(machines.run) == steps_written(machines.run)


def test_workers_that_never_come_fail_the_job(machines: Machines, model_folder: Path) -> None:
    launcher = machines.launcher(job(machines, model_folder, workers=2, policy__pendingDeadline="2s"))
    launcher.expect(5, "waiting for worker 0, 1 of 2 for 2 s, longer than policy.pendingDeadline")


@pytest.mark.parametrize("network", ["10.213.77.", "fd0b:213:77::"], ids=["IPv4", "IPv6 alone"])
def test_two_network_namespaces(machines: Machines, model_folder: Path, undisturbed: Path, network: str) -> None:
    """Two hosts with addresses of their own, joined by a cable, and a launcher in a third."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    with Network(network, 3) as prefixes:
        file = job(machines, model_folder, workers=2)
        token = ["--token-file", machines.token, "--workdir", machines.run]
        launcher = machines.start("launcher", file, "--listen", f":{machines.port}", *token, prefix=prefixes[2])
        url = f"http://{f'[{network}3]' if ':' in network else f'{network}3'}:{machines.port}"
        workers = [
            machines.start(
                "worker", "--launcher", url, "--index", str(index), *token, "--base-dir", machines.folder,
                prefix=prefixes[index],
            )
            for index in (0, 1)
        ]  # fmt: skip
        for process in (launcher, *workers):
            process.expect(0)
    assert weights(machines.run) == weights(undisturbed)


class Network:
    """Network namespaces on one bridge of their own; entered, the command prefixes that run in them.

    Args:
        network: what a host's number is written behind, to be its address.
    """

    def __init__(self, network: str, hosts: int) -> None:
        self._names = [f"ytrain-test-{os.getpid()}-{host}" for host in range(1, hosts + 1)]
        self._cables = [f"ytn{os.getpid()}{host}"[:15] for host in range(1, hosts + 1)]
        self._network = network
        self._bridge = f"ytt{os.getpid()}"[:15]

    def __enter__(self) -> list[list[str]]:
        self._ip("link", "add", self._bridge, "type", "bridge")
        self._ip("link", "set", self._bridge, "up")
        for host, (name, near) in enumerate(zip(self._names, self._cables, strict=True), start=1):
            far = f"ytf{os.getpid()}{host}"[:15]
            self._ip("netns", "add", name)
            self._ip("link", "add", near, "type", "veth", "peer", "name", far)
            self._ip("link", "set", near, "master", self._bridge, "up")
            self._ip("link", "set", far, "netns", name)
            address = f"{self._network}{host}"
            whole = [f"{address}/64", "nodad"] if ":" in address else [f"{address}/24"]
            for words in (["addr", "add", *whole, "dev", far], ["link", "set", far, "up"]):
                self._ip("-n", name, *words)
            self._ip("-n", name, "link", "set", "lo", "up")
        return [["ip", "netns", "exec", name] for name in self._names]

    def __exit__(self, *_: object) -> None:
        for name, cable in zip(self._names, self._cables, strict=True):
            self._ip("link", "del", cable)  # the namespace would take its end along later than it is gone itself
            self._ip("netns", "del", name)
        self._ip("link", "del", self._bridge)

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True)
