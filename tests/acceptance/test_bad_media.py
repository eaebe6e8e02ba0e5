"""Pictures and bodies that are wrong, odd or hostile, sent to a classifier through the front door."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.acceptance import pictures
from tests.acceptance.answers import is_cat, refused, top1
from tests.acceptance.pictures import CAT_JPEG
from tests.conftest import Demo

pytestmark = pytest.mark.usefixtures("unharmed")

ODD_CATS: dict[str, Callable[[], bytes]] = {
    "PNG with alpha": pictures.with_alpha,
    "CMYK JPEG": pictures.cmyk,
    "grey JPEG": pictures.grey,
    "PNG with a palette": pictures.palette,
    "16-bit PNG": pictures.sixteen_bit,
    "turned by EXIF": pictures.turned_by_exif,
    "animated GIF": pictures.animated_gif,
    "WebP": pictures.webp,
}


@pytest.mark.parametrize("kind", ODD_CATS)
def test_an_unusual_picture_of_a_cat_is_a_cat(demo: Demo, kind: str) -> None:
    assert is_cat(demo.server.infer("classifier", demo.token, content=ODD_CATS[kind]()))


def test_orientation_matters_to_the_model(demo: Demo) -> None:
    upright = demo.server.infer("classifier", demo.token, content=pictures.turned_by_exif()).json()["predictions"]
    on_its_side = demo.server.infer("classifier", demo.token, content=pictures.on_its_side()).json()["predictions"]
    assert upright != on_its_side


def test_what_cannot_be_seen_is_white(demo: Demo) -> None:
    see_through = demo.server.infer("classifier", demo.token, content=pictures.see_through())
    white = pictures.encoded(pictures.Image.new("RGB", pictures.cat().size, "white"), "PNG")
    assert (
        see_through.json()["predictions"]
        == demo.server.infer("classifier", demo.token, content=white).json()["predictions"]
    )


def test_one_pixel_is_a_picture(demo: Demo) -> None:
    assert top1(demo.server.infer("classifier", demo.token, content=pictures.one_pixel()))


BAD_PICTURES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "text": (lambda: b"this is no picture, just a sentence", 415, "not an image"),
    "a PDF": (lambda: b"%PDF-1.7\n" + b"0" * 1000, 415, "not an image"),
    "an SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "not an image"),
    "zeros": (lambda: bytes(5000), 415, "not an image"),
    "a truncated JPEG": (pictures.truncated_jpeg, 422, "cut off or damaged"),
    "a truncated PNG": (pictures.truncated_png, 422, "cut off or damaged"),
    "the first bytes of a JPEG": (lambda: CAT_JPEG[:12], 422, "cut off"),
    "a PNG header of 200 megapixels": (pictures.huge_png_header, 413, "20000 x 10000"),
    "a JPEG header of 200 megapixels": (pictures.huge_jpeg_header, 413, "20000 x 10000"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
@pytest.mark.parametrize("way", ["body", "multipart", "json"])
def test_a_bad_picture_is_refused_by_its_content(demo: Demo, kind: str, way: str) -> None:
    make, status, says = BAD_PICTURES[kind]
    data = make()
    sent: dict[str, dict[str, Any]] = {
        "body": {"content": data, "headers": {"Content-Type": "image/jpeg"}},
        "multipart": {"files": {"image": ("cat.jpg", data, "image/jpeg")}},
        "json": {"json": {"inputs": {"image": base64.b64encode(data).decode()}}},
    }
    refused(demo.server.infer("classifier", demo.token, **sent[way]), status, None, says)


def test_one_bad_picture_among_good_ones_names_its_place(demo: Demo) -> None:
    files = [("image", ("a.jpg", CAT_JPEG)), ("image", ("b.jpg", pictures.truncated_jpeg()))]
    error = refused(demo.server.infer("classifier", demo.token, files=files), 422, "invalid_input")
    assert "2" in error["message"]


MULTIPART = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
JSON = "application/json"
BAD_BODIES: dict[str, tuple[str, bytes, int, str]] = {
    "empty": ("image/jpeg", b"", 400, "empty"),
    "empty without a type": ("", b"", 400, "empty"),
    "no file in the form": (MULTIPART, b"--b--\r\n", 400, "no file"),
    "an empty form": (MULTIPART, b"", 400, "cut off"),
    "an empty file": (MULTIPART, PART + b"\r\n--b--\r\n", 415, "not an image"),
    "a wrong field": (MULTIPART, PART.replace(b'"image"', b'"picture"') + b"x\r\n--b--\r\n", 400, "'picture'"),
    "a form without a boundary": ("multipart/form-data", PART, 400, "boundary"),
    "another boundary": ("multipart/form-data; boundary=other", PART + b"x\r\n--b--\r\n", 400, ""),
    "a form that is cut off": (MULTIPART, PART + CAT_JPEG, 400, "cut off"),
    "a part without a name": (MULTIPART, b"--b\r\n\r\nx\r\n--b--\r\n", 400, "field name"),
    "a part with many headers": (
        MULTIPART,
        b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\nx\r\n--b--\r\n",
        400,
        "multipart",
    ),
    "a part with a long header": (
        MULTIPART,
        b"--b\r\nX: " + b"y" * 9000 + b"\r\n\r\nx\r\n--b--\r\n",
        400,
        "multipart",
    ),
    "parameters that are not JSON": (
        MULTIPART,
        PART + CAT_JPEG + b'\r\n--b\r\nContent-Disposition: form-data; name="parameters"\r\n\r\n{"a"\r\n--b--\r\n',
        400,
        "JSON",
    ),
    "JSON that is none": (JSON, b'{"inputs": ', 400, "JSON"),
    "JSON that is not UTF-8": (JSON, b'{"inputs": "\xff"}', 400, "JSON"),
    "JSON of great depth": (JSON, b"[" * 100_000, 400, "JSON"),
    "a JSON list": (JSON, b"[1]", 400, "`inputs`"),
    "JSON without inputs": (JSON, b"{}", 400, "`inputs`"),
    "JSON with an unknown key": (JSON, b'{"inputs": "", "input": 1}', 400, "'input'"),
    "JSON with empty inputs": (JSON, b'{"inputs": []}', 400, "empty"),
    "JSON with a wrong field": (JSON, b'{"inputs": {"picture": ""}}', 400, "`image`"),
    "JSON with a number for a picture": (JSON, b'{"inputs": [1]}', 422, "base64"),
    "JSON that is not base64": (JSON, b'{"inputs": "%%%%"}', 422, "base64"),
    "parameters that are no object": (JSON, b'{"inputs": "", "parameters": 3}', 400, "`parameters`"),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_a_body_that_cannot_be_read_is_refused(demo: Demo, kind: str) -> None:
    media_type, body, status, says = BAD_BODIES[kind]
    headers = {"Content-Type": media_type} if media_type else {}
    answer = demo.server.infer("classifier", demo.token, content=body, headers=headers)
    refused(answer, status, None, says)


@pytest.mark.parametrize("top_k", [0, -1, 1001, 1.5, "many", True, None, [3]])
def test_a_parameter_that_makes_no_sense_is_refused(demo: Demo, top_k: object) -> None:
    body = {"inputs": {"image": base64.b64encode(CAT_JPEG).decode()}, "parameters": {"top_k": top_k}}
    answer = demo.server.infer("classifier", demo.token, json=body)
    if top_k is None:  # as if it had not been sent
        assert len(answer.json()["predictions"]) == 5
    else:
        refused(answer, 422, "invalid_input", "top_k", "1 to 1000")


def test_too_many_pictures_in_one_request(demo: Demo) -> None:
    files = [("image", (f"{i}.png", pictures.one_pixel())) for i in range(65)]
    refused(demo.server.infer("classifier", demo.token, files=files), 413, "too_large", "64")
    texts = [base64.b64encode(pictures.one_pixel()).decode()] * 65
    answer = demo.server.infer("classifier", demo.token, json={"inputs": texts})
    refused(answer, 413, "too_large", "64")


def test_too_many_parts_in_one_form(demo: Demo) -> None:
    body = b"".join(PART + b"x\r\n" for _ in range(500)) + b"--b--\r\n"
    answer = demo.server.infer("classifier", demo.token, content=body, headers={"Content-Type": MULTIPART})
    refused(answer, 413, "too_large", "parts")


def test_a_body_over_the_cap_is_refused_announced_or_not(demo: Demo) -> None:
    body = bytes(33 << 20)
    refused(demo.server.infer("classifier", demo.token, content=body), 413, "too_large", "32 MiB")
    chunks = (body[: 1 << 20] for _ in range(33))
    try:
        answer = demo.server.infer("classifier", demo.token, content=chunks)
    except httpx.WriteError:  # it may hang up on a sender that does not listen
        pytest.fail("the answer was lost")
    refused(answer, 413, "too_large", "32 MiB")


@pytest.mark.parametrize("version", ["one", "-1", "1.0", "99999999999", "%00", "\u0661"])
def test_a_version_that_is_no_number(demo: Demo, version: str) -> None:
    answer = demo.server.infer("classifier", demo.token, content=CAT_JPEG, query=f"?version={version}")
    refused(answer, 400, "bad_request", "`version`")


def test_a_version_that_is_not_in_service(demo: Demo) -> None:
    answer = demo.server.infer("classifier", demo.token, content=CAT_JPEG, query="?version=1")
    assert is_cat(answer)
    answer = demo.server.infer("classifier", demo.token, content=CAT_JPEG, query="?version=7")
    refused(answer, 404, "model_not_found", "Version 7", "ask for 1")
    headers = {"X-Access-Token": demo.token}
    for path in ("versions/7", "versions/7/ready"):
        refused(demo.server.client.get(f"/v2/models/classifier/{path}", headers=headers), 404, None, "Version 7")
    answer = demo.server.client.post("/v2/models/classifier/versions/7/infer", headers=headers, json={})
    refused(answer, 404, None, "Version 7")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_method_that_the_call_does_not_take(demo: Demo, method: str) -> None:
    answer = demo.server.client.request(
        method, "/api/v1/inference/classifier", headers={"X-Access-Token": demo.token}
    )
    refused(answer, 405, "method_not_allowed", "POST")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("sent", ["", "a" * 65, "with space", "line\tfeed", "ü", "a/b"])
def test_a_request_id_that_cannot_be_used_is_replaced(demo: Demo, sent: str) -> None:
    answer = demo.server.client.get("/health/live", headers={"X-Request-ID": sent.encode()})
    made = answer.headers["x-request-id"]
    assert made != sent
    assert len(made) == 24
