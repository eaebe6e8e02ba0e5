"""Every parser at the door, with inputs that look like its own. A new parser belongs into `PARSERS`."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request

from app.external.call import bind_call, take_apart
from app.external.door import secret_of
from app.external.modality import read_by_content
from app.external.multipart import parse_multipart
from app.external.oip_request import read_infer, read_timeout_s
from app.external.stream_options import StreamOptions, change_options, options_from_query
from app.internal.upload_form import receive_form
from app.middleware import choose_request_id, content_length
from core.access.addresses import caller_behind, hops_of, is_in, read_address, read_network
from core.access.jwt import Claims, read, sign
from core.access.rates import parse_rates
from core.access.tokens import TokenIndex
from core.database.repositories.base import decode_cursor, encode_cursor
from core.media import audio, images
from core.media.tensors import tensors_from_json
from core.pipelines.definition import parsed
from core.signature import Signature, TensorSpec
from core.store.archives import ArchiveLimits, extract
from core.store.artifacts import ArtifactStore
from core.store.formats import detect
from core.store.manifest import manifest_from_json, parse_manifest
from core.store.names import check_model_name
from core.store.paths import check_member
from core.store.sources.source import parse_source
from tests.acceptance import onnx_models
from tests.fuzzing.bytes_like import damaged, damaged_text, json_values
from tests.servers import ROOT, zip_bytes


@dataclass(frozen=True)
class Parser:
    """Draws an input, and parses it; what the parser may raise beside the platform's own errors."""

    inputs: st.SearchStrategy[Any]
    parse: Callable[[Any], object]
    also: tuple[type[Exception], ...] = ()


SIGNATURE = Signature(
    inputs=(
        TensorSpec("x", "FP32", (-1, 4)),
        TensorSpec("n", "INT64", (-1,)),
        TensorSpec("t", "BYTES", (-1,)),
        TensorSpec("b", "BOOL", (-1, -1)),
        TensorSpec("h", "BF16", (2,)),
    ),
    outputs=(TensorSpec("y", "FP32", (-1, 4)),),
)
TENSORS: Any = SimpleNamespace(modality="tensor", signature=SIGNATURE)
TEXTS: Any = SimpleNamespace(modality="text", signature=SIGNATURE)
PICTURES: Any = SimpleNamespace(modality="image", signature=SIGNATURE)

# Multipart

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\nxyz'
    b'\r\n--b\r\nContent-Disposition: form-data; name="parameters"\r\n\r\n{"a": [1, 2.5]}\r\n--b--\r\n'
)
UPLOAD = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nabc\r\n--b\r\n'
    b'Content-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n\x08\x08\r\n--b--\r\n'
)
FORM_TYPES = damaged([b"multipart/form-data; boundary=b", b'multipart/form-data; boundary="b"; charset=utf-8'], 3)
BODY_TYPES = FORM_TYPES | damaged([b"application/json", b"application/json; charset=utf-8", b"image/png", b""], 2)
CALLS = [
    FORM,
    b'{"inputs": {"x": [[1, 2, 3, 4]], "n": [1]}, "parameters": {"top_k": 3}}',
    b'{"inputs": [{"name": "x", "shape": [1, 4], "data": [1, 2, 3, 4]}]}',
    b'{"inputs": {"image": "aGFsbG8="}}',
    b'{"inputs": {"text": ["one", "two"]}}',
]


_JSON_CALLS = json_values().map(lambda value: json.dumps({"inputs": value}).encode())


def _call(drawn: tuple[bytes, bytes]) -> None:
    call = take_apart(*drawn, max_items=8)
    for target in (TENSORS, TEXTS, PICTURES):
        with suppress_own():
            bind_call(target, call, max_items=8)


def _form(drawn: tuple[bytes, bytes, int]) -> None:
    content_type, body, step = drawn
    chunks = [body[at : at + step] for at in range(0, len(body), step)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0) if chunks else b"", "more_body": bool(chunks)}

    async def scenario(folder: Path) -> None:
        store = ArtifactStore(folder, max_bytes=1 << 20, min_free_bytes=0)
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type)]}
        try:
            form = await receive_form(Request(scope, receive), store, frozenset({"name", "task"}))
            form.file.path.unlink()
        finally:
            store.close()
            assert not list((folder / "incoming").glob("*")), "an upload was left behind"

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


# The Open Inference Protocol

_OIP_JSON = json.dumps(
    {
        "id": "1",
        "parameters": {"timeout": 5, "priority": 1, "binary_data_output": True},
        "inputs": [
            {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
            {"name": "t", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
            {"name": "n", "shape": [2], "datatype": "INT64", "data": [1, 2]},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
    }
).encode()
OIP = _OIP_JSON + bytes(16) + b"\2\0\0\0ab"
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "n", "t", "b", "h", "z"]) | json_values(2),
        "shape": st.lists(st.sampled_from([0, 1, 2, 4, -1, 2**31 - 1, 2**40]), max_size=5) | json_values(4),
        "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL", "BF16", "FP16"]) | json_values(2),
        "data": json_values(),
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "shared_memory_region", "classification"]), json_values(2)
        ),
    },
)


@st.composite
def _oip(draw: st.DrawFn) -> tuple[bytes, int | None]:
    if draw(st.booleans()):
        sizes = [len(_OIP_JSON)] * 4 + [None, 0, 1, len(OIP), 10**6]
        return draw(damaged([OIP], 3)), draw(st.sampled_from(sizes))
    call = {
        "inputs": draw(st.lists(_FIELDS, max_size=3) | json_values(3)),
        "outputs": draw(st.none() | st.lists(_FIELDS, max_size=2) | json_values(3)),
        "parameters": draw(
            st.none()
            | st.dictionaries(
                st.sampled_from(["timeout", "priority", "binary_data_output", "sequence_id"]), json_values(2)
            )
        ),
        "id": draw(json_values(2)),
    }
    head = json.dumps(call).encode()
    return head + draw(st.binary(max_size=40)), draw(st.just(len(head)) | st.none())


def _read_oip(drawn: tuple[bytes, int | None]) -> None:
    body, header_bytes = drawn
    read_timeout_s(body[:64], header_bytes, whole=False)
    read_timeout_s(body, header_bytes, whole=True)
    read_infer(SIGNATURE, body, header_bytes)


# Tokens, headers, addresses, limits

KEY = b"k" * 32
_signed: list[str] = []


def _jwt() -> list[bytes]:
    if not _signed:
        from datetime import UTC, datetime

        _signed.append(sign(Claims(1, "session"), KEY, datetime(2100, 1, 1, tzinfo=UTC)))
    return [token.encode() for token in _signed]


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"x-access-token", b"authorization", b"x-request-id", b"content-length", b"cookie"]),
        damaged([b"Bearer pv_" + b"A" * 43, b"pv_" + b"A" * 43, b"basic eDp5", b"123"], 3),
    ),
    max_size=4,
)


def _headers(drawn: list[tuple[bytes, bytes]]) -> None:
    assert len(choose_request_id(drawn)) <= 64
    assert content_length({"headers": drawn}) >= 0
    TokenIndex(None).lookup(secret_of(drawn))  # type: ignore[arg-type]  # it holds none, and asks for none


ADDRESSES = ("203.0.113.7", "2001:db8::1", "::ffff:198.51.100.7", "fe80::1%eth0", "10.0.0.0/8", "[::1]:80")
ADDRESS_PIECES = (*':./%[]";, ', "for=", "255", "-1", "0x7f", "unknown", "_hidden")


def _addresses(drawn: tuple[str, str, list[str]]) -> None:
    address, network, values = drawn
    networks = [read_network("10.0.0.0/8")]
    with suppress(ValueError):
        networks.append(read_network(network))
    is_in(read_address(address), networks)
    for header in ("x-forwarded-for", "forwarded"):
        assert isinstance(caller_behind("10.0.0.1", hops_of(header, values), networks), str)


# Packages

MANIFEST = """task: tensor
model: model.onnx
labels: [cat, dog]
preprocess: {resize: {size: [224, 224]}, mean: [0.5]}
batching: {max_batch: 8, max_delay_ms: 1.5}
inputs:
  - {name: x, dtype: FP32, shape: [-1, 4]}
"""
GRAPHS = [path.read_text() for path in sorted((ROOT / "demo/pipelines").glob("*.yaml"))]
YAML_PIECES = (
    *("&a ", "*a", "<<: ", "!!python/object:os.system ", "!!binary ", "? ", "- ", ": ", "|\n ", ">\n ", "---\n"),
    *("2024-99-99", "0o777", "1e999", ".nan", *"~{}[]'\"#\t", "\n  ", "\\ud800", "%YAML 9"),
    *("nodes:", "inputs:", "outputs:", "model:", "map:", "switch:", "$item", "input.image", "default:"),
)
_PIPELINE = """name: p
inputs: {image: {type: image}}
nodes:
  a: {model: m, inputs: {image: input.image}}
  b: {map: nodes.a.detections, body: {nodes: {c: {model: n, inputs: {image: $item}}}, outputs: {o: nodes.c.text}}}
outputs: {found: nodes.a.detections}
"""

LIMITS = ArchiveLimits(max_files=20, max_bytes=8 << 20, max_ratio=100)


def _zips() -> list[bytes]:
    package = {"model.yaml": MANIFEST, "model.onnx": onnx_models.scale(), "labels.txt": "cat\ndog\n"}
    return [zip_bytes(package), zip_bytes(package, 8), zip_bytes({"a/b/c.txt": "x" * 3000, "a/d.json": "{}"}, 8)]


def _archive(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder)
        (outer / "a.zip").write_bytes(data)
        (outer / "target").mkdir()
        try:
            extract(outer / "a.zip", outer / "target", LIMITS)
        finally:
            assert {path.name for path in outer.iterdir()} == {"a.zip", "target"}, "it wrote elsewhere"
            assert not any(path.is_symlink() for path in outer.rglob("*"))


def _formats(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "file").write_bytes(data)
        detect(Path(folder) / "file")


FILES = [
    onnx_models.scale(),
    onnx_models.counting(),
    zip_bytes({"archive/data.pkl": b"\x80\x02.", "archive/version": "3", "archive/code/__torch__.py": "x"}),
    b'<?xml version="1.0"?><net name="n" version="11"><layers/></net>',
    b"GGUF\3\0\0\0" + bytes(16),
    b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}",
]

# Media


def _pictures() -> list[bytes]:
    found = []
    picture = Image.effect_noise((24, 17), 60).convert("RGB")
    for kind, mode, options in (
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
    ):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def _picture(data: bytes) -> None:
    pixels = images.decode(data, max_pixels=1 << 20)
    assert pixels.shape[0] * pixels.shape[1] <= 1 << 20


def _recordings() -> list[bytes]:
    samples = np.sin(np.arange(1600) / 5).astype(np.float32)
    found = []
    codings = {"WAV": ("PCM_16", "FLOAT"), "FLAC": ("PCM_16",), "OGG": ("VORBIS",), "MP3": (None,)}
    for kind, coding in ((kind, coding) for kind, some in codings.items() for coding in some):
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 16_000, format=kind, subtype=coding)
        found.append(buffer.getvalue())
    return found


def _recording(data: bytes) -> None:
    assert audio.decode(data, max_seconds=30, max_bytes=8 << 20).size <= 30 * 16_000 + 1


NAMES = damaged_text(
    ["model", "a.b-c_9", "hf:acme/cats@main", "pypi:pack==1.0/file.onnx#sha256=" + "0" * 64, "weights/a.bin"],
    [*"/\\\0@# ａо\u202e\ud800", "..", "%2e", "%252e", "==", "hf:", "://", "a" * 64],
)


def _names(text: str) -> None:
    for check in (check_model_name, check_member, parse_source):
        with suppress_own():
            check(text)
    with suppress_own():
        decode_cursor(text, int)
    with suppress_own():
        decode_cursor(text, str)


def suppress_own() -> Any:
    """The platform's errors of bad input, so that several parsers get the same input."""
    from core.errors import PlatformError

    return suppress(PlatformError)


QUERIES = damaged([b"mode=newest&in_flight=2&version=3", b"token=pv_x", b"a=%ff%00&b"], 4)


def _query(drawn: tuple[bytes, dict[str, Any]]) -> None:
    with suppress_own():
        options_from_query(drawn[0], max_in_flight=16)
    change_options(StreamOptions(), drawn[1], max_in_flight=16)


_SAID = st.dictionaries(st.sampled_from(["mode", "in_flight", "parameters", "odd"]), json_values(4))
_RATES = damaged_text(
    ["100/second", "10000 per 2 hours", "5/minute; 1/day"],
    ["/", " per ", ";", "|", "0", "-", "9" * 400, "e9", ".", "month", "year", "²", "١", "\0"],
)

PARSERS: dict[str, Parser] = {
    "multipart": Parser(
        st.tuples(FORM_TYPES, damaged([FORM])), lambda drawn: parse_multipart(*drawn, max_parts=16)
    ),
    "upload form": Parser(st.tuples(FORM_TYPES, damaged([UPLOAD]), st.integers(1, 40)), _form),
    "native call": Parser(st.tuples(BODY_TYPES, damaged(CALLS, 2) | _JSON_CALLS), _call),
    "prediction": Parser(
        st.tuples(BODY_TYPES, damaged(CALLS)), lambda drawn: read_by_content(*drawn, max_items=8)
    ),
    "JSON tensors": Parser(json_values(30), lambda value: tensors_from_json(value, SIGNATURE)),
    "OIP request": Parser(_oip(), _read_oip),
    "tokens and headers": Parser(HEADERS, _headers),
    "session tokens": Parser(
        damaged(_jwt()).map(lambda data: data.decode("latin-1")), lambda text: read(text, KEY)
    ),
    "names": Parser(NAMES | st.integers(0, 2**31).map(encode_cursor), _names),
    "manifest": Parser(damaged_text([MANIFEST], YAML_PIECES), parse_manifest),
    "manifest as JSON": Parser(
        st.dictionaries(
            st.sampled_from(["task", "model", "labels", "preprocess", "batching", "inputs", "odd"]), json_values(6)
        ),
        manifest_from_json,
    ),
    "pipeline": Parser(damaged_text([*GRAPHS, _PIPELINE], YAML_PIECES), parsed),
    "archive": Parser(damaged(_zips()), _archive),
    "model format": Parser(damaged(FILES + _zips()), _formats),
    "image": Parser(damaged(_pictures()), _picture),
    "audio": Parser(damaged(_recordings()), _recording),
    "addresses": Parser(
        st.tuples(
            damaged_text(ADDRESSES, ADDRESS_PIECES),
            damaged_text(ADDRESSES, ADDRESS_PIECES),
            st.lists(damaged_text(("for=192.0.2.43;by=x", *ADDRESSES), ADDRESS_PIECES), max_size=3),
        ),
        _addresses,
    ),
    "limits": Parser(_RATES, lambda text: parse_rates([text])),
    "stream options": Parser(st.tuples(QUERIES, _SAID), _query),
}
