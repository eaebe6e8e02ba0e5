"""The Playground: what is sent goes the way of every call, and what comes back is drawn without scripts."""

from __future__ import annotations

import io
import math
import re
import struct
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.tallies import traffic_of
from core.access.roles import Role
from core.control.actor import Actor
from core.control.user_changes import add_user, hashed_password
from core.errors import UnsupportedMedia
from core.media import images, masks
from core.serving.catalogue import Served, Share
from core.serving.request import InferenceRequest, InferenceResult, Timing
from core.signature import Signature, TensorSpec
from tests.integration.dashboard.conftest import Browser, House
from tests.servers import PASSWORD

HOSTILE = "<script>alert(1)</script>\"'"


@dataclass(eq=False)
class Said:
    """A target that answers what it was told to."""

    modality: str
    answers: list[dict[str, Any]] | None = None
    outputs: Mapping[str, Any] | None = None
    model: str = "said"
    version: int = 1
    task: str = "object-detection"
    signature: Signature = field(default_factory=lambda: Signature((), ()))
    seen: list[InferenceRequest] = field(default_factory=list)

    def check_room(self) -> None:
        pass

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        self.seen.append(request)
        if self.modality == "image" and request.payloads:
            images.probe(request.payloads[0].data)
        timing = Timing(queue=1, preprocess=2, infer=30, postprocess=4, total=40)
        outputs = None if self.outputs is None else dict(self.outputs)
        return InferenceResult(self.model, self.version, self.task, timing, self.answers, outputs)


class Serve:
    def __init__(self, house: House) -> None:
        self._house = house
        self._names: list[str] = []

    def __call__(self, target: Said, name: str = "said") -> Said:
        target.model = name
        self._names.append(name)
        self._swap(name, [Share(Served(target))])
        return target

    def _swap(self, name: str, shares: list[Share]) -> None:
        async def swap() -> None:
            self._house.platform.catalogue.swap(name, shares)

        self._house.run(swap)

    def stop(self) -> None:
        for name in self._names:
            self._swap(name, [])


@pytest.fixture
def serve(house: House) -> Iterator[Serve]:
    serve = Serve(house)
    yield serve
    serve.stop()


def photo(width: int = 60, height: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def recording(seconds: float = 0.5) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        steps = range(int(seconds * 16_000))
        sound.writeframes(b"".join(struct.pack("<h", int(20_000 * math.sin(step / 9))) for step in steps))
    return file.getvalue()


def send(browser: Browser, file: bytes | None = None, name: str = "said", **texts: str) -> Any:
    browser.get(f"/dashboard/playground/{name}")
    files = {} if file is None else {"files": {"media": ("a file", file, "application/octet-stream")}}
    return browser.post(f"/dashboard/playground/{name}", texts, **files)


def test_without_anything_in_service_it_says_where_to_begin(admin: Browser) -> None:
    page = admin.get("/dashboard/playground")
    assert page.status_code == 200
    assert "deploy a model first" in page.text
    assert 'href="/dashboard/models"' in page.text
    assert admin.get("/dashboard/playground/nothing").status_code == 404


def test_boxes_are_drawn_over_the_photo_and_hostile_labels_are_text(admin: Browser, serve: Serve) -> None:
    box = {"label": HOSTILE, "index": 1, "score": 0.875, "box": [10.0, 5.0, 30.0, 25.0]}
    target = serve(Said("image", [{"detections": [box], "image": {"width": 60, "height": 40}}]))
    answer = send(admin, photo(), parameters='{"score_threshold": 0.5}')
    assert answer.status_code == 200
    assert 'viewBox="0 0 60 40"' in answer.text
    assert 'points="10.0,5.0 30.0,5.0 30.0,25.0 10.0,25.0"' in answer.text
    assert "data:image/jpeg;base64," in answer.text
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert not re.search(r"\sstyle=|\son\w+=", answer.text)
    assert '<g class="shape-label" data-of="0" data-score="0.875"' in answer.text
    assert "POST /api/v1/inference/said HTTP/1.1" in answer.text
    for words in ("queue", "preprocess", "infer", "postprocess", "88", "curl -H", "requests.post", "await fetch"):
        assert words in answer.text
    assert target.seen[0].parameters == {"score_threshold": 0.5}
    assert target.seen[0].request_id == answer.headers["x-request-id"]
    assert "/api/v1/inference/said" in answer.text


def test_a_call_counts_as_any_other(admin: Browser, serve: Serve, house: House) -> None:
    serve(Said("text", [{"text": "yes"}]), "counted")
    assert send(admin, name="counted", text="hello").status_code == 200
    assert send(admin, name="counted", text=" ").status_code == 400
    assert send(admin, name="counted", text="hello", version="9").status_code == 404
    assert traffic_of(house.platform, None)["counted"].requests == 2  # the empty one was never a call


def test_a_script_is_answered_with_the_part_alone(admin: Browser, serve: Serve) -> None:
    serve(Said("text", [{"predictions": [{"label": "good", "index": 0, "score": 0.5}]}]))
    admin.get("/dashboard/playground?target=said")
    answer = admin.post("/dashboard/playground/said", {"text": "fine"}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert 'class="scores"' in answer.text


def test_masks_and_maps_lie_over_the_photo(admin: Browser, serve: Serve) -> None:
    mask = masks.png_of(np.ones((4, 6), np.bool_), 2, 3, (40, 60))
    classes = masks.png_of_classes(np.full((40, 60), 3, np.uint8))
    instance = {"label": "cup", "index": 1, "score": 0.9, "box": [2, 3, 8, 7], "mask": mask}
    serve(Said("image", [{"masks": [instance], "map": classes}]))
    text = send(admin, photo()).text
    assert f"data:image/png;base64,{mask}" in text
    assert 'mask="url(#mask-0)"' in text
    assert 'class="picture-map"' in text


def test_a_recording_has_its_shape_and_what_was_said(admin: Browser, serve: Serve) -> None:
    serve(Said("audio", [{"text": "so it is", "segments": [{"start": 0.0, "end": 0.25, "text": "so it is"}]}]))
    text = send(admin, recording()).text
    assert 'aria-label="Waveform, 0.5 seconds"' in text
    assert "so it is" in text
    assert "0.25 s" in text


def test_tensors_are_sent_as_json(admin: Browser, serve: Serve) -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),))
    target = serve(
        Said("tensor", None, {"y": np.asarray([[0.25]], np.float32)}, task="tensor", signature=signature)
    )
    page = admin.get("/dashboard/playground/said").text
    assert "{&#34;x&#34;: [[0.0, 0.0]]}" in page
    answer = send(admin, inputs='{"x": [[1, 2]]}')
    assert "0.25" in answer.text
    assert target.seen[-1].inputs is not None
    assert target.seen[-1].inputs["x"].tolist() == [[1.0, 2.0]]
    assert send(admin, inputs='{"inputs": {"x": [[3, 4]]}}').status_code == 200
    assert target.seen[-1].inputs["x"].tolist() == [[3.0, 4.0]]
    assert send(admin, b'{"x": [[5, 6]]}').status_code == 200
    assert target.seen[-1].inputs["x"].tolist() == [[5.0, 6.0]]


@pytest.mark.parametrize(
    ("file", "texts", "status", "sentence"),
    [
        (None, {}, 400, "Choose a photo first."),
        (b"nothing like a photo", {}, UnsupportedMedia.status, "This is text, not an image"),
        (photo(), {"parameters": "{"}, 400, "The parameters are not valid JSON (line 1, column 2)."),
        (photo(), {"parameters": "[]"}, 400, "The parameters must be an object"),
        (photo(), {"version": "7"}, 404, "Version 7 of model"),
    ],
)
def test_what_is_wrong_is_said_in_the_platforms_words(
    admin: Browser, serve: Serve, file: bytes | None, texts: dict[str, str], status: int, sentence: str
) -> None:
    serve(Said("image", [{"text": ""}]))
    answer = send(admin, file, **texts)
    assert answer.status_code == status
    assert sentence in answer.text.replace("&#39;", "'")


def test_a_body_is_no_larger_than_the_inference_api_takes(admin: Browser, serve: Serve, house: House) -> None:
    target = serve(Said("image", [{"text": ""}]))
    most = house.platform.settings.inference.max_body_bytes
    answer = send(admin, bytes(most + 1))
    assert answer.status_code == 413
    assert "32 MiB" in answer.text
    admin.get("/dashboard/playground/said")
    answer = send(admin, bytes(most + (1 << 20)))
    assert answer.status_code == 413
    assert "32 MiB" in answer.text
    assert not target.seen


def test_who_may_only_look_is_told_why(house: House, serve: Serve) -> None:
    async def add() -> None:
        async with house.platform.database.transaction() as session:
            hashed = await hashed_password(PASSWORD, "playground-looker")
            await add_user(session, "playground-looker", hashed, Role.VIEWER, Actor("test", "", ""))

    target = serve(Said("text", [{"text": ""}]))
    house.run(add)
    viewer = house.browser()
    viewer.sign_in("playground-looker")
    page = viewer.get("/dashboard/playground/said")
    assert "Calling needs the role operator; you are viewer." in page.text
    assert "<fieldset disabled>" in page.text
    answer = viewer.post("/dashboard/playground/said", {"text": "x"})
    assert answer.status_code == 403
    assert not target.seen
