"""Model uploads that are wrong or hostile: refused with a reason, or found invalid, and nothing left of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.acceptance.pictures import CAT_JPEG
from tests.conftest import Demo, StartServer
from tests.servers import DEMO_MODEL, INTERNAL, RunningServer, wait_until, zip_bytes

YAML = "task: tensor\nmodel: model.onnx\n"


def _package(**files: bytes | str) -> bytes:
    return zip_bytes({"model.yaml": YAML, "model.onnx": onnx_models.scale(), **files})


def _zip_slip() -> bytes:
    data = zip_bytes({"model.yaml": YAML, "model.onnx": onnx_models.scale(), "../escaped.txt": "out"})
    assert "../escaped.txt" in zipfile.ZipFile(io.BytesIO(data)).namelist()
    return data


def _symlink() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.yaml", YAML)
        link = zipfile.ZipInfo("model.onnx")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def _bomb() -> bytes:
    data = zip_bytes({"model.yaml": YAML, "model.onnx": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 20
    return data


def _cut_in_half() -> bytes:
    data = (DEMO_MODEL / "model.onnx").read_bytes()
    return data[: len(data) // 2]


def _onnx_list_of_names() -> bytes:
    return zip_bytes(
        {"a.onnx": onnx_models.scale(), "b.onnx": onnx_models.scale(), "model.yaml": "task: tensor\n"}
    )


REFUSED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "text named .onnx": (lambda: b"this is a text file\n" * 10, 415, "text"),
    "a picture": (lambda: CAT_JPEG, 415, "image"),
    "a pickle": (lambda: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94.", 415, "pickle"),
    "a TensorRT plan": (lambda: b"ftrt" + bytes(100), 415, "only where the administrator trusts"),
    "a zip with a TensorRT plan": (
        lambda: zip_bytes({"model.yaml": "task: tensor\n", "model.plan": b"ftrt" + bytes(100)}),
        415,
        "(engines.trust_plans)",
    ),
    "nothing": (lambda: b"", 422, "empty"),
    "a model cut in half": (_cut_in_half, 422, "cut short"),
    "a zip cut in half": (lambda: _package()[:-60], 422, "zip"),
    "a zip with ../": (_zip_slip, 422, "escaped.txt"),
    "a zip with a symlink": (_symlink, 422, "symbolic link"),
    "a bomb": (_bomb, 413, "bomb"),
    "a zip in a zip": (lambda: _package(**{"more.zip": _package()}), 422, "archive"),
    "a zip with a program": (lambda: _package(**{"run.sh": "true"}), 422, "run.sh"),
    "a zip of nothing": (lambda: zip_bytes({}), 422, "no files"),
    "a zip without a model": (lambda: zip_bytes({"model.yaml": "task: tensor\n"}), 422, ".onnx"),
    "a zip of two models": (_onnx_list_of_names, 422, "several"),
    "a manifest that is no YAML": (lambda: _package(**{"model.yaml": "task: ["}), 422, "model.yaml"),
    "a manifest with an unknown field": (
        lambda: _package(**{"model.yaml": YAML + "colour: red\n"}),
        422,
        "colour",
    ),
    "a manifest with an unknown task": (
        lambda: _package(**{"model.yaml": "task: divination\n"}),
        422,
        "divination",
    ),
    "a manifest with a model outside": (
        lambda: _package(**{"model.yaml": "task: tensor\nmodel: ../../etc/passwd\n"}),
        422,
        "model",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_upload_that_cannot_be_accepted(unharmed: Demo, kind: str) -> None:
    make, status, says = REFUSED[kind]
    refused(unharmed.server.send_upload("bad", make()), status, None, says)
    refused(unharmed.server.api("GET", "/models/bad"), 404, "model_not_found")


@pytest.mark.parametrize(
    "location", ["../../../pulvinar.db", "/etc/passwd", "missing.data", "..", "weights/../../x.data"]
)
def test_external_data_outside_the_package_is_found_invalid(demo: Demo, location: str) -> None:
    model = onnx_models.with_external_data(location)
    assert location.encode() in model
    answer = demo.server.send_upload("external", zip_bytes({"model.yaml": YAML, "model.onnx": model}))
    assert answer.status_code == 202, answer.text
    try:
        version = demo.server.wait_version("external", 1)
        assert version["status"] == "invalid"
        wrong = next(row for row in version["report"] if not row["ok"])
        assert wrong["check"] == "external_data"
        assert "/tmp" not in json.dumps(version)
        answer = demo.server.api("PUT", "/models/external/deployment", json={"version": 1})
        refused(answer, 409, "conflict", "invalid")
    finally:
        demo.server.ok("DELETE", "/models/external")
    assert not demo.server.incoming()


def test_external_data_inside_the_package_is_used(demo: Demo) -> None:
    package = _package(
        **{"model.onnx": onnx_models.with_external_data("factor.data"), "factor.data": b"\0\0\x40\x40"}
    )
    demo.server.upload("external", package)
    demo.server.deploy("external")
    answer = demo.server.infer("external", demo.token, json={"inputs": {"x": [[1, 2, 3, 4]]}})
    assert answer.json()["outputs"][0]["data"] == [3, 6, 9, 12]
    gone = demo.server.ok("DELETE", "/models/external/deployment")
    demo.server.wait_generation("external", gone["generation"], "stopped")
    demo.server.ok("DELETE", "/models/external")


def test_what_is_valid_says_so_check_by_check(demo: Demo) -> None:
    version = demo.server.ok("GET", "/models/classifier/versions/1")
    assert [row["ok"] for row in version["report"]] == [True] * len(version["report"])
    checks = {row["check"] for row in version["report"]}
    assert checks >= {"parse", "external_data", "operators", "load", "signature", "dry_run"}
    assert all(row["detail"].endswith(".") and row["ms"] >= 0 for row in version["report"])
    assert version["signature"]["outputs"] == [{"name": "logits", "dtype": "FP32", "shape": [-1, 1000]}]
    assert len(version["sha256"]) == 64


BAD_NAMES = [
    "",
    " ",
    "..",
    "../../x",
    "a/b",
    "a\\b",
    "A",
    "-a",
    ".a",
    "a" * 64,
    "a\0b",
    "é",
    "%2e%2e",
    "a..b",
    "a b",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_model_can_have(unharmed: Demo, name: str) -> None:
    refused(unharmed.server.send_upload(name, onnx_models.scale()), 400, "bad_request", "name")


@pytest.mark.parametrize(
    "name", ["..%2F..%2Fx", "%2e%2e%2f%2e%2e%2fx", "..%252F..%252Fx", "x%00", "%F0%9F%92%A9", "a" * 300]
)
def test_a_hostile_name_in_a_path(unharmed: Demo, name: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/deployment"), ("GET", "/versions/1")):
        answer = unharmed.server.api(method, f"/models/{name}{path}")
        assert answer.status_code in (400, 404), answer.text
        refused(answer, answer.status_code)
    refused(unharmed.server.infer(name, unharmed.token, content=b"x"), 404)


def test_a_form_without_a_file(unharmed: Demo) -> None:
    answer = unharmed.server.api("POST", "/models", files={"name": (None, "bad")})
    refused(answer, 400, "bad_request", "`file`")
    answer = unharmed.server.api("POST", "/models", data={"name": "bad"})
    refused(answer, 400, "bad_request", "multipart/form-data")
    answer = unharmed.server.api("POST", "/models", json={"name": "bad"})
    refused(answer, 400, "bad_request", "multipart/form-data")


def test_a_form_with_fields_that_are_not_expected(unharmed: Demo) -> None:
    refused(unharmed.server.send_upload("bad", onnx_models.scale(), colour="red"), 400, "bad_request", "'colour'")
    two = [("file", ("a.onnx", onnx_models.scale())), ("file", ("b.onnx", onnx_models.scale()))]
    refused(
        unharmed.server.api("POST", "/models", files=two, data={"name": "bad"}), 400, "bad_request", "one file"
    )


def test_a_name_that_is_taken(unharmed: Demo) -> None:
    refused(unharmed.server.send_upload("classifier", onnx_models.scale()), 409, "conflict", "add a version")


def test_a_version_of_no_model(unharmed: Demo) -> None:
    answer = unharmed.server.send_upload("nobody", onnx_models.scale(), version=True)
    refused(answer, 404, "model_not_found")


def test_the_same_bytes_are_kept_once(demo: Demo) -> None:
    before = demo.server.artifacts()
    data = onnx_models.scale(17)
    for name in ("twin-a", "twin-b"):
        demo.server.upload(name, data)
    assert len(demo.server.artifacts()) == len(before) + 1
    demo.server.ok("DELETE", "/models/twin-a")
    assert len(demo.server.artifacts()) == len(before) + 1
    demo.server.ok("DELETE", "/models/twin-b")
    assert demo.server.artifacts() == before


def _begin_upload(server: RunningServer, body: bytes, announced: int) -> socket.socket:
    """Send the beginning of an upload, and leave the rest to the caller."""
    head = (
        f"POST {INTERNAL}/models HTTP/1.1\r\nHost: localhost\r\nX-Auth-Token: {server.login()}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {announced}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n'
    )
    sending = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sending.sendall(head.encode() + body)
    return sending


def test_an_upload_that_breaks_off_leaves_nothing(unharmed: Demo) -> None:
    with _begin_upload(unharmed.server, os.urandom(3 << 20), announced=10 << 20):
        wait_until("The upload's file", unharmed.server.incoming)
    wait_until("Its end", lambda: not unharmed.server.incoming())


def test_an_upload_whose_form_is_cut_off(unharmed: Demo) -> None:
    body = onnx_models.scale()
    with _begin_upload(unharmed.server, b"", announced=len(body) + 75) as sending:
        sending.sendall(body)
        sending.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while sending.recv(65536):  # until the server has done with it
                pass
    wait_until("Its end", lambda: not unharmed.server.incoming())


def test_an_upload_over_the_cap_is_refused_announced_or_not(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_STORE__MAX_UPLOAD_BYTES": str(1 << 20)})
    refused(server.send_upload("big", os.urandom(2 << 20)), 413, "too_large", "1048576")
    refused(_send_in_chunks(server, 2 << 20), 413, "too_large", "1048576")
    assert server.upload("small", onnx_models.scale()) == 1
    assert [model["name"] for model in server.ok("GET", "/models")["items"]] == ["small"]
    assert not server.incoming()


def _send_in_chunks(server: RunningServer, size_bytes: int) -> object:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nbig\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n'
        for _ in range(size_bytes >> 16):
            yield os.urandom(1 << 16)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return server.api("POST", "/models", content=chunks(), headers=headers)


def test_plans_are_taken_where_they_are_trusted_and_need_their_engine(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_ENGINES__TRUST_PLANS": "true"})
    answer = server.send_upload("plan", b"ftrt" + bytes(100), task="tensor")
    assert answer.status_code == 202, answer.text
    version = server.wait_version("plan", 1)
    assert (version["format"], version["status"]) == ("tensorrt", "invalid")
    checks = {row["check"]: row for row in version["report"]}
    assert "trusts plans" in checks["operators"]["detail"]
    assert checks["load"]["detail"].startswith(
        "No engine here runs tensorrt models: pip install 'pulvinar[tensorrt]'"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"no small disk can be mounted: {made.stderr}")
        pytest.skip("mounting a small disk needs root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("left_free", [0, 8 << 20])
def test_a_full_disk(small_disk: Path, start_server: StartServer, left_free: int) -> None:
    server = start_server({"PULVINAR_STORE__MIN_FREE_BYTES": str(left_free)}, small_disk)
    free = shutil.disk_usage(small_disk).free
    # More than there is; or, where some must stay free, what fits and leaves too little.
    too_much = free - left_free // 2 if left_free else free + (16 << 20)
    refused(_send_in_chunks(server, too_much), 507, "storage_full", "disk")
    refused(server.send_upload("big", os.urandom(too_much)), 507, "storage_full", "disk")
    # What fits as a zip, but not with what comes out of it.
    package = zip_bytes({"model.yaml": YAML, "model.onnx": onnx_models.scale(), "x.bin": os.urandom(25 << 20)})
    refused(server.send_upload("big", package), 507, "storage_full", "disk")
    assert not server.incoming()
    assert not server.artifacts()
    assert server.ok("GET", "/models")["items"] == []
    assert server.upload("small", onnx_models.scale()) == 1
