"""Versions in motion: canaries, shadows, rollbacks, swaps under load, and what goes wrong meanwhile."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from core.control.actor import SYSTEM
from core.control.deploying import deploy
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.settings import InferenceSettings
from schemas.deployments import DeploymentPut
from tests.acceptance import onnx_models, rollout_models
from tests.acceptance.answers import refused
from tests.acceptance.conftest import Slow
from tests.conftest import StartServer
from tests.databases import with_database
from tests.servers import RunningServer, wait_until

GOOD, OTHER, FAILING, SLOW, HEAVY = 1, 2, 3, 4, 5
"""Versions of the model `m`: `x` times 2, but for `OTHER`, which is `x` times 3."""
WATCH = {"window_s": 60, "max_error_rate": 0.05, "max_latency_ratio": 2.0, "min_requests": 20}


@dataclass(frozen=True)
class Rollouts:
    """A server with the model `m` in its versions, and a token."""

    server: RunningServer
    token: str

    def call(self, x: float = 1.0, *, query: str = "", key: str = "") -> httpx.Response:
        """One request."""
        headers = {"X-Sticky-Key": key} if key else {}
        return self.server.infer("m", self.token, json={"inputs": {"x": [[x] * 4]}}, query=query, headers=headers)

    def version(self, **how: Any) -> int:
        """The version that answers a request."""
        answer = self.call(**how)
        assert answer.status_code == 200, answer.text
        number: int = answer.json()["version"]
        return number

    def put(self, *traffic: Mapping[str, Any], **options: Any) -> int:
        """Desire this traffic; answers the generation."""
        body = {"traffic": list(traffic), **options}
        generation: int = self.server.ok("PUT", "/models/m/deployment", json=body)["generation"]
        return generation

    def serve(self, *traffic: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Desire this traffic and wait for it; answers what is observed."""
        return self.server.wait_generation("m", self.put(*traffic, **options))

    def observed(self, version: int) -> dict[str, Any]:
        """What is observed of one version."""
        found: dict[str, Any] = next(
            row for row in self.server.observed("m")["versions"] if row["version"] == version
        )
        return found


def live(version: int, weight: float = 1) -> dict[str, Any]:
    return {"version": version, "weight": weight}


def shadow(version: int, weight: float = 1) -> dict[str, Any]:
    return {"version": version, "weight": weight, "mode": "shadow"}


@dataclass
class Load:
    """`with Load(rollouts) as load:` calls without a pause until the block ends, and keeps every answer."""

    rollouts: Rollouts
    callers: int = 4
    x: float = 1.0
    answers: list[tuple[int, int, Any]] = field(default_factory=list)
    """Status, version and the first output of each answer, in the order in which they came."""

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(self.callers)]
        for thread in self._threads:
            thread.start()
        self.wait_for(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Wait for so many more answers."""
        until = len(self.answers) + count
        wait_until(f"{count} more answers", lambda: len(self.answers) >= until)

    @property
    def failures(self) -> list[tuple[int, int, Any]]:
        return [answer for answer in self.answers if answer[0] != 200]

    def _call(self) -> None:
        server = self.rollouts.server
        headers = {"X-Access-Token": self.rollouts.token}
        body = {"inputs": {"x": [[self.x] * 4]}}
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/api/v1/inference/m", headers=headers, json=body)
                except httpx.TransportError as error:
                    self.answers.append((0, 0, repr(error)))
                    return
                if answer.status_code == 200:
                    told = answer.json()
                    self.answers.append((200, told["version"], told["outputs"][0]["data"][0]))
                else:
                    self.answers.append((answer.status_code, 0, answer.json()["error"]["code"]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollouts]:
    with RunningServer(tmp_path_factory.mktemp("rollouts")) as server:
        yield prepared(server)


@pytest.fixture
def rollouts(shared: Rollouts) -> Rollouts:
    """The shared server, back at the first version."""
    shared.serve(live(GOOD))
    return shared


def prepared(server: RunningServer) -> Rollouts:
    server.upload("m", onnx_models.scale(2))
    for file in (
        onnx_models.scale(3),
        rollout_models.failing(),
        rollout_models.slow(150),
        rollout_models.heavy(100),
    ):
        server.upload("m", file, version=True)
    rollouts = Rollouts(server, server.token())
    rollouts.serve(live(GOOD))
    return rollouts


# Canaries


def test_a_canary_gets_its_share(rollouts: Rollouts) -> None:
    rollouts.serve(live(GOOD, 90), live(OTHER, 10))
    versions = Counter(rollouts.version() for _ in range(100))
    assert 9 <= versions[OTHER] <= 11, versions
    assert {rollouts.version(query=f"?version={OTHER}") for _ in range(10)} == {OTHER}
    row = rollouts.observed(OTHER)
    assert (row["state"], row["weight"], row["requests"], row["errors"]) == (
        "serving",
        10,
        versions[OTHER] + 10,
        0,
    )
    assert row["mean_ms"] > 0


def test_a_key_stays_with_its_version(rollouts: Rollouts) -> None:
    rollouts.serve(live(GOOD, 50), live(OTHER, 50))
    keys = [f"user-{i}" for i in range(60)]
    first = {key: rollouts.version(key=key) for key in keys}
    assert set(first.values()) == {GOOD, OTHER}
    assert {key: rollouts.version(key=key) for key in keys} == first
    assert rollouts.version(key=keys[0], query=f"?version={OTHER}") == OTHER
    rollouts.serve(live(GOOD, 20), live(OTHER, 80))
    after = {key: rollouts.version(key=key) for key in keys}
    assert all(after[key] == OTHER for key in keys if first[key] == OTHER), "a key left a version that grew"
    assert after != first


def test_the_other_protocol_keeps_to_keys_too(rollouts: Rollouts) -> None:
    rollouts.serve(live(GOOD, 50), live(OTHER, 50))
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    for i in range(20):
        headers = {"X-Access-Token": rollouts.token, "X-Sticky-Key": f"user-{i}"}
        answer = rollouts.server.client.post("/v2/models/m/infer", headers=headers, json={"inputs": [tensor]})
        assert int(answer.json()["model_version"]) == rollouts.version(key=f"user-{i}")


def test_weights_change_without_a_reload(rollouts: Rollouts) -> None:
    rollouts.serve(live(GOOD, 1), live(OTHER, 1))
    for _ in range(10):
        rollouts.call()
    before = [rollouts.observed(version)["requests"] for version in (GOOD, OTHER)]
    rollouts.serve(live(GOOD, 1), live(OTHER, 3))
    assert [rollouts.observed(version)["requests"] for version in (GOOD, OTHER)] == before, (
        "counts begin with a load"
    )


# Shadows


@pytest.mark.parametrize(("version", "agrees"), [(OTHER, 0.0), (SLOW, 1.0)])
def test_a_shadow_is_compared_and_never_answers(rollouts: Rollouts, version: int, agrees: float) -> None:
    rollouts.serve(live(GOOD), shadow(version))

    def compared(copies: int) -> dict[str, Any] | None:
        stats: dict[str, Any] = rollouts.observed(version)["shadow"]
        return stats if stats["compared"] + stats["dropped"] == copies else None

    ahead = False
    for number in range(1, 31):
        assert rollouts.call().json()["outputs"][0]["data"] == [2, 2, 2, 2]
        ahead = ahead or not compared(number)
    assert ahead or version != SLOW, "callers wait for their shadow"
    stats = wait_until("The comparison", lambda: compared(30))
    assert stats["compared"] > 0
    assert (stats["agreement"], stats["errors"]) == (agrees, 0)
    assert stats["live_ms"] > 0 < stats["shadow_ms"]
    assert stats["max_abs_difference"] == (1 if version == OTHER else 0)
    assert rollouts.call(query=f"?version={version}").status_code in (404, 503)


def test_a_shadow_that_fails_or_is_slow_changes_no_answer(rollouts: Rollouts) -> None:
    x = rollout_models.FAILS_AT
    rollouts.serve(live(GOOD), shadow(FAILING), shadow(SLOW, 0.1))
    answers = [rollouts.call(x) for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["outputs"][0]["data"] == [2 * x] * 4 for answer in answers)
    wait_until("Every copy's end", lambda: rollouts.observed(FAILING)["shadow"]["errors"] == 40)
    assert rollouts.observed(GOOD)["errors"] == 0
    rollouts.serve(live(GOOD))
    assert [row["version"] for row in rollouts.server.observed("m")["versions"] if row["state"] == "shadow"] == []


# Rollbacks by themselves


def test_a_version_that_fails_goes_back_by_itself(rollouts: Rollouts) -> None:
    observed = rollouts.serve(live(FAILING), watch=WATCH)
    assert {row["version"]: row["state"] for row in observed["versions"]} == {GOOD: "standby", FAILING: "serving"}
    statuses = Counter(rollouts.call(rollout_models.FAILS_AT if i % 2 else 1).status_code for i in range(20))
    assert statuses == {200: 10, 500: 10}
    back = rollouts.server.wait_generation("m", observed["generation"] + 1)
    assert back["reason"] == f"Version {FAILING} was rolled back: 50 % of 20 requests failed (limit 5 %)."
    assert rollouts.call(rollout_models.FAILS_AT).status_code == 200
    desired = rollouts.server.ok("GET", "/models/m/deployment")["desired"]
    assert (desired["updated_by"], desired["rolled_back"]) == ("system", back["reason"])
    assert [part["version"] for part in desired["traffic"]] == [GOOD]
    entry = rollouts.server.ok("GET", "/audit?limit=1")["items"][0]
    assert (entry["actor"], entry["action"], entry["subject"]) == ("system", "deployment.rollback", "m")
    assert entry["detail"]["reason"] == back["reason"]


def test_a_caller_s_mistakes_are_not_the_version_s(rollouts: Rollouts) -> None:
    observed = rollouts.serve(live(OTHER), watch=WATCH)
    for _ in range(30):
        bad = rollouts.server.infer("m", rollouts.token, json={"inputs": {"x": [[1]]}})
        assert bad.status_code == 422
    for _ in range(30):
        assert rollouts.call().status_code == 200
    now = rollouts.server.observed("m")
    assert (now["generation"], now["state"]) == (observed["generation"], "serving")
    assert rollouts.observed(OTHER)["errors"] == 0


def test_a_slow_canary_goes_back_by_itself(rollouts: Rollouts) -> None:
    observed = rollouts.serve(live(GOOD, 1), live(SLOW, 1), watch=WATCH)
    with Load(rollouts, callers=1) as load:  # a moment in which the machine did other things is outweighed in time
        back = rollouts.server.wait_generation("m", observed["generation"] + 1)
    assert load.failures == []
    assert re.match(rf"Version {SLOW} was rolled back: \d+ requests took \S+ ms on average", back["reason"])
    assert {rollouts.version() for _ in range(10)} == {GOOD}


def test_a_slow_full_swap_goes_back_by_itself_and_fails_nobody(rollouts: Rollouts) -> None:
    with Load(rollouts, callers=1) as load:
        generation = rollouts.put(live(SLOW), watch=WATCH)
        back = rollouts.server.wait_generation("m", generation + 1)
        load.wait_for(20)
    assert "ms on average" in back["reason"]
    assert load.failures == []
    assert SLOW in {version for _, version, _ in load.answers}
    assert load.answers[-1][1] == GOOD


@pytest.mark.parametrize(
    "watch",
    [
        {"window_s": 0},
        {"max_error_rate": 1},
        {"max_error_rate": -0.1},
        {"max_latency_ratio": 1},
        {"min_requests": 0},
        {"patience": 3},
    ],
)
def test_a_watch_has_bounds(rollouts: Rollouts, watch: dict[str, float]) -> None:
    answer = rollouts.server.api("PUT", "/models/m/deployment", json={"version": OTHER, "watch": watch})
    refused(answer, 422)
    assert next(iter(watch)) in answer.json()["error"]["message"]


# Under load


def test_ten_rollbacks_under_load_fail_nobody(rollouts: Rollouts) -> None:
    rollouts.serve(live(OTHER))
    with Load(rollouts) as load:
        for _ in range(10):
            accepted = rollouts.server.ok("POST", "/models/m/deployment/rollback")
            rollouts.server.wait_generation("m", accepted["generation"])
            load.wait_for(5)
    assert load.failures == []
    assert {(version, output) for _, version, output in load.answers} == {(GOOD, 2), (OTHER, 3)}


def test_a_version_loads_while_another_serves(rollouts: Rollouts) -> None:
    with Load(rollouts) as load:
        generation, during, _ = _caught_loading(load, HEAVY)
        assert {row["version"]: row["state"] for row in during["versions"]}[GOOD] == "serving"
        answered = len(load.answers)
        rollouts.server.wait_generation("m", generation)
        load.wait_for(20)
    assert load.failures == []
    assert GOOD in {version for _, version, _ in load.answers[answered:]}, "nobody was answered during the load"
    assert load.answers[-1][1] == HEAVY


def _caught_loading(load: Load, version: int) -> tuple[int, dict[str, Any], int]:
    """Desire a version in the place of the first, and catch it as it is brought up; missed, it is begun again.

    Answers the generation, what was observed, and how many answers there were before.
    """
    rollouts = load.rollouts
    for _ in range(10):
        before = len(load.answers)
        generation, observed = rollouts.put(live(version)), rollouts.server.observed("m")
        while observed["generation"] < generation or observed["state"] != "serving":
            states = {row["version"]: row["state"] for row in observed["versions"]}
            if states.get(version) in ("loading", "warming"):
                return generation, observed, before
            observed = rollouts.server.observed("m")
        rollouts.serve(live(GOOD))
        load.wait_for(20)  # among them all that was under way
    raise AssertionError("The load was never seen")


def test_a_newer_change_ends_a_load_under_way(rollouts: Rollouts) -> None:
    with Load(rollouts) as load:
        _, _, before = _caught_loading(load, HEAVY)
        observed = rollouts.serve(live(OTHER))
        load.wait_for(20)
    assert load.failures == []
    assert HEAVY not in {version for _, version, _ in load.answers[before:]}
    assert load.answers[-1][1:] == (OTHER, 3)
    assert HEAVY not in {row["version"] for row in observed["versions"]}


def test_draining_shows_and_ends(slow: Slow) -> None:
    slow.server.upload("slow", onnx_models.counting(), version=True)
    calls = slow.begin_two(1.5)

    def states() -> dict[int, str]:
        return {row["version"]: row["state"] for row in slow.server.observed("slow")["versions"]}

    slow.server.ok("PUT", "/models/slow/deployment", json={"version": 2})
    wait_until("The drain", lambda: states() == {1: "draining", 2: "serving"})
    assert not calls[0].done(), "the request ended before the drain could be seen"
    assert slow.call(0.01).json()["version"] == 2
    assert [call.result().status_code for call in calls] == [200, 200]
    wait_until("The end of the drain", lambda: states() == {2: "serving"})


# Faults


def test_a_stop_during_a_swap(start_server: StartServer) -> None:
    server = start_server()
    server.upload("m", onnx_models.scale(2))
    server.upload("m", rollout_models.heavy(100), version=True)
    rollouts = Rollouts(server, server.token())
    rollouts.serve(live(1))
    with Load(rollouts) as load:
        generation, _, _ = _caught_loading(load, 2)
        server.terminate()
        server.process.wait(server.drain_s + 10)
    answered = [status for status, _, _ in load.answers if status]
    assert set(answered) <= {200, 503}, Counter(answered)
    server.wait_stopped()
    server.start()
    server.wait_generation("m", generation)
    assert rollouts.version() == 2


def test_a_hundred_deployments_changed_at_once(start_server: StartServer) -> None:
    """All of one artifact: the models are written into the database, for a hundred validations would take long."""
    server = start_server()
    server.upload("m", onnx_models.scale(2))
    names = [f"model-{i:03}" for i in range(100)]
    server.stop()

    def body(version: int) -> dict[str, Any]:
        return DeploymentPut(version=version).model_dump()

    async def multiply(database: Any) -> None:
        async with database.transaction() as session:
            model = await Models(session).by_name("m")
            assert model is not None
            first = await Versions(session).get(model.id, 1)
            assert first is not None
            for name in names:
                twin = await Models(session).add(name, "tensor")
                for _ in range(2):
                    added = await Versions(session).add_next(
                        twin.id,
                        format=first.format,
                        size_bytes=first.size_bytes,
                        sha256=first.sha256,
                        manifest=first.manifest,
                    )
                    await Versions(session).finish(added.id, "valid", report=[], signature=first.signature)
                await deploy(session, name, body(1), InferenceSettings(), SYSTEM)

    url = f"sqlite:///{server.data_dir / 'pulvinar.db'}"
    with_database(url, multiply)
    server.start()
    token = server.token()

    async def change_all(database: Any) -> None:
        async with database.transaction() as session:
            for name in names:
                await deploy(session, name, body(2), InferenceSettings(), SYSTEM)

    with_database(url, change_all)
    for name in names:
        assert server.wait_generation(name, 2)["reason"] == ""
    for name in names:
        answer = server.infer(name, token, json={"inputs": {"x": [[1, 1, 1, 1]]}})
        assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert server.client.get("/health/ready").status_code == 200


def test_a_database_locked_for_five_seconds(start_server: StartServer) -> None:
    server = start_server()
    server.upload("m", onnx_models.scale(2))
    server.upload("m", onnx_models.scale(3), version=True)
    rollouts = Rollouts(server, server.token())
    rollouts.serve(live(1))
    lock = sqlite3.connect(server.data_dir / "pulvinar.db", isolation_level=None)
    with Load(rollouts) as load, ThreadPoolExecutor(1) as threads:
        lock.execute("BEGIN IMMEDIATE")
        before = time.monotonic()
        change = threads.submit(server.api, "PUT", "/models/m/deployment", json={"version": 2})
        while time.monotonic() - before < 5:
            load.wait_for(20)
        assert not change.done()
        lock.execute("ROLLBACK")
        lock.close()
        answer = change.result()
        assert answer.status_code == 202, answer.text
        server.wait_generation("m", answer.json()["generation"])
        load.wait_for(20)
    assert load.failures == []
    assert load.answers[-1][1] == 2
