"""TorchScript from upload to answer: always in a process of its own; and pickles, which get nowhere."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.answers import refused
from tests.conftest import Demo
from tests.processes import hosts, wait_gone
from tests.servers import zip_bytes
from tests.torch_forwards import weighs
from tests.torch_models import payload, script, told


def test_a_script_is_served_from_a_process_of_its_own(demo: Demo) -> None:
    server = demo.server
    before = set(hosts(server))
    server.upload("script", script(weighs), manifest=json.dumps(told()))
    server.deploy("script", isolation="thread")
    try:
        (host,) = set(hosts(server)) - before
        answer = server.infer("script", demo.token, json={"inputs": {"x": [[1, 2, 3], [0, 0, 0]]}})
        assert answer.status_code == 200, answer.text
        output = answer.json()["outputs"][0]
        assert (output["name"], output["dtype"], output["shape"]) == ("y", "FP32", [2, 3])
        assert [round(value, 3) for value in output["data"]] == [6.018] * 3 + [0] * 3
        # The library is nowhere but there.
        assert "libtorch" in Path(f"/proc/{host.pid}/maps").read_text()
        assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    finally:
        gone = server.ok("DELETE", "/models/script/deployment")
        server.wait_generation("script", gone["generation"], "stopped")
        server.ok("DELETE", "/models/script")
    wait_gone([host])


def test_a_saved_pickle_is_refused_and_does_not_run(unharmed: Demo, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    saved = zip_bytes({"m/data.pkl": payload(trace), "m/version": "3"})
    for file in (saved, payload(trace), zip_bytes({"model.yaml": "task: tensor\n", "model.pt": saved})):
        answer = unharmed.server.send_upload("bad", file)
        refused(answer, 415, "unsupported_media", "can run code when it is loaded", "Export the model")
    assert not trace.exists()
