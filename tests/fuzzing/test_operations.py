"""The short form: a few calls of every operation, the same each time. `make fuzz` goes on with others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.acceptance import onnx_models
from tests.fuzzing.operations import Called, call, operations
from tests.servers import RunningServer

SHORT = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("operations")) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale")
        yield server


# The internal one comes last: some of its operations end sessions.
@pytest.mark.parametrize("document", ["external", "internal"])
def test_every_operation_answers_as_its_document_says(server: RunningServer, document: str) -> None:
    headers = {"X-Auth-Token": server.login()} if document == "internal" else {"X-Access-Token": server.token()}
    called, wrong = Called(), []
    for operation in operations(document):
        try:
            call(server, operation, headers, called, SHORT)
        except (Exception, BaseExceptionGroup) as error:  # all that is wrong, at once
            wrong.append(f"{operation.label}: {str(error)[:600]}")
    assert not wrong, "\n\n".join(wrong)
    assert len(called.statuses) > (60 if document == "internal" else 15)
    assert not any(status >= 500 for counts in called.statuses.values() for status in counts if status != 503)
