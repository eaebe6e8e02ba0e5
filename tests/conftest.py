from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import RunningServer, demo_package

StartServer = Callable[..., RunningServer]


@dataclass(frozen=True)
class Demo:
    """A server with the demo classifier in service under the name `classifier`, and a token for all of it."""

    server: RunningServer
    token: str


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """For tests that leave the server as they found it."""
    with RunningServer(tmp_path_factory.mktemp("demo")) as server:
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
