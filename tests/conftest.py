from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.answers import is_cat
from tests.acceptance.pictures import CAT_JPEG
from tests.servers import RunningServer, demo_package, wait_until

StartServer = Callable[..., RunningServer]
# A file is one worker's from its first test to its last: those that take longest begin first, so that none is left
# running alone at the end.
LONGEST = (
    "test_kill_points",
    "test_life_cycle",
    "test_efficientnet",
    "test_pipelines",
    "test_workers",
    "test_isolation",
    "test_rollouts",
    "test_restarts",
    "test_bench",
    "test_optimising",
    "test_memory",
    "test_oip_client",
    "test_kill_campaign",
    "test_pages",
    "test_usage",
    "test_imports",
    "test_cli",
    "test_demo",
    "test_speech",
    "test_pressure",
    "test_connections",
    "test_uploads",
    "test_validation",
    "test_speech_recognition",
    "test_search",
    "test_conformance",
    "test_onnx",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; `make test` keeps that order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@dataclass(frozen=True)
class Demo:
    """A server with the demo classifier in service under the name `classifier`, and a token for all of it."""

    server: RunningServer
    token: str


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """For tests that leave the server as they found it."""
    few = {"PULVINAR_SEQUENCES__MAX_SEQUENCES": "3"}
    with RunningServer(tmp_path_factory.mktemp("demo"), few) as server:
        server.upload("classifier", demo_package())
        server.deploy("classifier")
        yield Demo(server, server.token())


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a fresh server for one test, which is stopped, and must end well, after it."""
    with ExitStack() as stack:

        def start(variables: Mapping[str, str] | None = None, folder: Path = tmp_path) -> RunningServer:
            return stack.enter_context(RunningServer(folder, variables))

        yield start


@pytest.fixture
def unharmed(demo: Demo) -> Iterator[Demo]:
    """The demo server, which must answer right after the test, and have nothing of an upload lying about."""
    models = {model["name"] for model in demo.server.ok("GET", "/models?limit=500")["items"]}
    artifacts = demo.server.artifacts()
    yield demo
    assert is_cat(demo.server.infer("classifier", demo.token, content=CAT_JPEG))
    wait_until("An empty folder of incoming uploads", lambda: not demo.server.incoming())
    assert {model["name"] for model in demo.server.ok("GET", "/models?limit=500")["items"]} == models
    assert demo.server.artifacts() == artifacts
