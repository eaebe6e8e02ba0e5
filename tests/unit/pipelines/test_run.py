from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    PlatformError,
    QueueFull,
    RunFailed,
    ShuttingDown,
)
from core.media.images import Decoded
from core.pipelines.trace import MOST_CALLS, Trace
from core.serving.catalogue import Served, Share
from core.serving.idle_model import IdleModel, IdleVersion
from core.serving.request import InferenceRequest, SequencePart
from core.signature import Signature
from tests.unit.pipelines.facts import CASCADE
from tests.unit.pipelines.targets import (
    Scripted,
    always,
    ask,
    boxes,
    classifier,
    detector,
    fake_classifier,
    photo,
    pipeline,
    put,
)

pytestmark = pytest.mark.anyio

LABELS = {"predictions": [{"label": "cat", "index": 0, "score": 0.75}]}
TWO = """
inputs: {photo: image}
nodes:
  detect: {model: detector, input: photo}
  classify: {model: classifier, input: photo}
outputs: {seen: detect.detections, class: classify.predictions}
"""
SWITCH = """
inputs: {photo: image}
nodes:
  c: {model: classifier, input: photo}
  first: {op: select, input: c.predictions, path: "0"}
  x:
    op: switch
    by: first.score
    cases:
      - {at_least: 0.5, nodes: {d: {model: detector, input: photo}}, output: d}
      - {at_least: 0.9, output: sure.value}
    default: {output: none.value}
  none: {op: constant, value: []}
  sure: {op: constant, value: sure}
outputs: {answer: x, label: first.label}
"""


async def test_every_object_is_cut_out_and_classified_and_the_parts_share_batches(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        async with fake_classifier(tmp_path, threads, latency_ms=20) as classes:
            async with pipeline(CASCADE, detector(boxes(20)), classes) as (line, _):
                result = await line.infer(ask())
            stats = await classes.stats()
    assert result.answers is not None
    objects = result.answers[0]["objects"]
    assert [one["detection"]["label"] for one in objects] == [f"thing {i}" for i in range(10)]
    # Each part is as red as its place says: pixels went from node to node as they are, and in their order.
    assert [one["classes"][0]["score"] for one in objects] == [10.0 * i for i in range(10)]
    assert stats.batch_sizes == {10: 1}


async def test_the_parts_share_batches_also_where_an_item_costs_the_same_alone(tmp_path: Path) -> None:
    """As on a CPU: strangers would not wait for each other, but the parts of one photo do anyway."""
    with ThreadPoolExecutor(2) as threads:
        async with fake_classifier(tmp_path, threads, instances=2, latency_ms=0, per_item_ms=20) as classes:
            async with pipeline(CASCADE, detector(boxes(20)), classes) as (line, _):
                await line.infer(ask())
            stats = await classes.stats()
    assert stats.batch_sizes == {5: 1, 3: 1, 1: 2}


async def test_pixels_are_decoded_once_and_handed_on() -> None:
    seen = detector(boxes(2))
    classes = classifier(always(LABELS), version=2)
    async with pipeline(CASCADE, seen, classes) as (line, _):
        await line.infer(ask())
    (whole,) = seen.asked[0].payloads or ()
    parts = [payload.image for one in classes.asked for payload in one.payloads or ()]
    assert whole.image is not None
    assert all(part is not None and np.shares_memory(part.pixels, whole.image.pixels) for part in parts)
    assert classes.asked[0].parameters == {"top_k": 3}


async def test_a_trace_has_what_went_in_and_came_out_of_every_call() -> None:
    trace = Trace()
    async with pipeline(CASCADE, detector(boxes(2)), classifier(always(LABELS), version=2)) as (line, _):
        await line.infer(ask(trace=trace))
        await line.infer(ask())
    calls = {call.name: call for call in trace.calls}
    assert list(calls)[:3] == ["detect", "sure", "best"]
    assert {"objects[0].crop", "objects[1].class", "objects[1].named", "objects"} < calls.keys()
    assert calls["objects[1].class"].what == "classifier"
    assert calls["objects[1].class"].outputs["predictions"] == LABELS["predictions"]
    assert calls["best"].outputs["items"] == calls["objects"].inputs["over"]
    assert isinstance(calls["objects[0].crop"].inputs["image"], Decoded)
    assert all(0 <= call.start_ms <= call.end_ms for call in trace.calls)
    times = {one.name: one for one in line.node_times.summaries()}
    assert (times["objects.class"].runs, times["objects.class"].calls) == (2, 2.0)
    assert times["detect"].mean_ms <= times["detect"].p95_ms
    assert next(iter(times)) == "detect"


async def test_a_trace_is_bounded() -> None:
    trace = Trace()
    text = CASCADE.replace("k: 10", "k: 100")
    async with pipeline(text, detector(boxes(90)), classifier(always(LABELS), version=2)) as (line, _):
        await line.infer(ask(trace=trace))
    assert len(trace.calls) == MOST_CALLS
    assert trace.left_out == 3 + 90 * 3 + 1 - MOST_CALLS


async def test_a_single_model_gets_the_file_itself() -> None:
    text = "inputs: {photo: image}\nnodes:\n  d: {model: detector, input: photo}\noutputs: {a: d}"
    seen = detector(boxes(1))
    async with pipeline(text, seen) as (line, _):
        await line.infer(ask())
    assert (seen.asked[0].payloads or ())[0].data == photo().data


async def test_a_part_of_a_sequence_is_refused() -> None:
    text = "inputs: {photo: image}\nnodes:\n  d: {model: detector, input: photo}\noutputs: {a: d}"
    seen = detector(boxes(1))
    async with pipeline(text, seen) as (line, _):
        with pytest.raises(InvalidInput, match="keeps nothing from one request to the next"):
            await line.infer(ask(sequence=SequencePart("7", start=True)))
    assert not seen.asked


async def test_branches_run_beside_each_other() -> None:
    both = asyncio.Barrier(2)

    async def meet(request: InferenceRequest) -> dict[str, Any]:
        await both.wait()
        return {**LABELS, **boxes(1)}

    models = Scripted("detector", "object-detection", "image", meet), classifier(meet)
    async with pipeline(TWO, *models) as (line, _):
        result = await asyncio.wait_for(line.infer(ask()), 5)
    assert result.answers == [{"seen": boxes(1)["detections"], "class": LABELS["predictions"]}]


async def test_a_map_runs_no_more_at_once_than_it_may() -> None:
    async def slowly(request: InferenceRequest) -> dict[str, Any]:
        await asyncio.sleep(0)
        return LABELS

    classes = classifier(slowly, version=2)
    text = CASCADE.replace("over: best.items", "over: best.items\n    parallel: 3")
    async with pipeline(text, detector(boxes(20)), classes) as (line, _):
        await line.infer(ask())
    assert len(classes.asked) == 10
    assert classes.most == 3


async def test_ten_thousand_items_are_refused_where_they_come_in() -> None:
    text = CASCADE.replace("k: 10", "k: 100000")
    classes = classifier(always(LABELS), version=2)
    async with pipeline(text, detector(boxes(10_000)), classes) as (line, _):
        with pytest.raises(InvalidInput, match=r"Node 'objects': 10000 items came, and it takes 100 at most"):
            await line.infer(ask())
    assert not classes.asked


async def test_an_error_says_its_node_and_item_and_ends_the_others() -> None:
    stuck = asyncio.Event()

    async def third(request: InferenceRequest) -> dict[str, Any]:
        if len(classes.asked) == 3:
            raise InvalidInput("this part is too dark.")
        await stuck.wait()
        return LABELS

    classes = classifier(third, version=2)
    async with pipeline(CASCADE, detector(boxes(5)), classes) as (line, catalogue):
        with pytest.raises(InvalidInput, match=r"^Node 'objects\[2\]\.class': this part is too dark\.$"):
            await line.infer(ask())
        assert classes.under_way == 0
        assert classes.cancelled == 4
        assert not catalogue.usage("classifier")[1]


async def test_cancelling_reaches_the_models_and_lets_them_go() -> None:
    begun = asyncio.Event()

    async def hang(request: InferenceRequest) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return LABELS

    classes = classifier(hang)
    async with pipeline(TWO, detector(boxes(1)), classes) as (line, catalogue):
        task = asyncio.create_task(line.infer(ask()))
        await begun.wait()
        assert catalogue.usage("classifier")[1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert classes.cancelled == 1
        assert not catalogue.usage("classifier")[1]
        line.check_room()


async def test_the_deadline_is_the_nodes_too_and_says_where_it_passed() -> None:
    async def hang(request: InferenceRequest) -> dict[str, Any]:
        await asyncio.Event().wait()
        return LABELS

    classes = classifier(hang, version=2)
    async with pipeline(CASCADE, detector(boxes(1)), classes) as (line, _):
        deadline = time.monotonic() + 0.5
        with pytest.raises(DeadlineExceeded, match=r"^The deadline passed in node 'objects.class'\.$"):
            await line.infer(ask(deadline=deadline, priority=2, request_id="r"))
    assert (classes.asked[0].deadline, classes.asked[0].priority, classes.asked[0].request_id) == (
        deadline,
        2,
        "r",
    )


async def test_a_request_keeps_the_versions_that_it_began_with() -> None:
    text = """
inputs: {photo: image}
nodes:
  one: {model: classifier, input: photo}
  first: {op: select, input: one.predictions, path: "0.label"}
  two:
    op: switch
    by: first
    cases:
      - {when: cat, nodes: {again: {model: classifier, input: photo}}, output: again}
    default: {output: one}
outputs: {labels: two}
"""
    swapped: list[Served] = []

    async def swap(request: InferenceRequest) -> dict[str, Any]:
        swapped.extend(catalogue.swap("classifier", [Share(Served(newer))]))
        return LABELS

    older, newer = classifier(swap, version=1), classifier(always({"predictions": []}), version=2)
    async with pipeline(text, older) as (line, catalogue):
        result = await line.infer(ask())
        assert result.answers == [{"labels": LABELS["predictions"]}]
        assert (len(older.asked), len(newer.asked)) == (2, 0)
        assert await swapped[0].drained(1)


async def test_a_model_that_was_undeployed_before_is_not_named() -> None:
    async with pipeline(TWO, detector(boxes(1))) as (line, _):
        assert line.missing() == ["classifier"]
        with pytest.raises(NotReady, match=r"^Node 'classify': its model is not in service now\.$"):
            await line.infer(ask())


async def test_a_model_undeployed_while_the_pipeline_runs_is_told_by_its_node() -> None:
    """Its lease has kept it until its drain deadline; then it is closed, and says so."""

    async def closed(request: InferenceRequest) -> dict[str, Any]:
        catalogue.swap("classifier", [])
        raise ShuttingDown("This version of the model is being taken down; try again.")

    async with pipeline(TWO, detector(boxes(1)), classifier(closed)) as (line, catalogue):
        with pytest.raises(NotReady, match=r"^Node 'classify': its model was taken out of service meanwhile\.$"):
            await line.infer(ask())


async def test_an_idle_model_is_loaded_once_for_all_items() -> None:
    wanted: list[str] = []
    classes = classifier(always(LABELS), version=2)

    async with pipeline(CASCADE, detector(boxes(5))) as (line, catalogue):
        version = IdleVersion("classifier", 2, "image-classification", "image", Signature((), ()))
        catalogue.swap("classifier", [], IdleModel((version,), 5.0, 8))

        def load(name: str) -> None:
            wanted.append(name)
            asyncio.get_running_loop().call_soon(put, catalogue, classes)

        catalogue.on_want = load
        assert line.missing() == []
        await line.infer(ask())
        assert wanted == ["classifier"]
        assert len(classes.asked) == 5
        assert not catalogue.usage("classifier")[1]


async def test_what_a_map_has_begun_waits_for_room_in_the_queue() -> None:
    async def full_at_first(request: InferenceRequest) -> dict[str, Any]:
        if len(classes.asked) < 4:
            raise QueueFull("no room")
        return LABELS

    classes = classifier(full_at_first, version=2)
    async with pipeline(CASCADE, detector(boxes(2)), classes) as (line, _):
        result = await line.infer(ask())
    assert result.answers is not None
    assert len(result.answers[0]["objects"]) == 2
    full = classifier(always(LABELS))
    full._answer = full_at_first
    classes.asked.clear()
    async with pipeline(TWO, detector(boxes(1)), full) as (line, _):
        with pytest.raises(QueueFull, match="Node 'classify': no room"):
            await line.infer(ask())


async def test_no_more_is_under_way_than_the_pipeline_has_room_for() -> None:
    gate = asyncio.Event()

    async def wait(request: InferenceRequest) -> dict[str, Any]:
        await gate.wait()
        return LABELS

    async with pipeline(TWO, detector(boxes(1)), classifier(wait), queue_size=2) as (line, _):
        tasks = [asyncio.create_task(line.infer(ask())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            line.check_room()
        with pytest.raises(QueueFull):
            await line.infer(ask())
        gate.set()
        await asyncio.gather(*tasks)
        line.check_room()
        with pytest.raises(InvalidInput, match="may bring 2 items"):
            await line.infer(InferenceRequest(payloads=[photo()] * 3))


@pytest.mark.parametrize(("score", "said"), [(0.95, "sure"), (0.6, boxes(1)["detections"]), (0.1, []), (None, [])])
async def test_a_switch_runs_the_case_that_fits_and_no_other(score: float | None, said: Any) -> None:
    seen = detector(boxes(1))
    answer = {"predictions": [{"label": "cat", "index": 0, "score": score}]}
    async with pipeline(SWITCH, seen, classifier(always(answer))) as (line, _):
        result = await line.infer(ask())
    assert result.answers == [{"answer": said, "label": "cat"}]
    assert len(seen.asked) == (score == 0.6)


async def test_several_photos_are_answered_in_their_order() -> None:
    async def by_size(request: InferenceRequest) -> dict[str, Any]:
        (payload,) = request.payloads or ()
        width = payload.image.width if payload.image is not None else 0
        await asyncio.sleep(0.02 / width)  # the first is the last to be ready
        return {"predictions": [{"label": str(width), "index": 0, "score": 1.0}]}

    async with pipeline(TWO, detector(boxes(1)), classifier(by_size)) as (line, _):
        payloads = [photo(width) for width in (4, 8, 16)]
        result = await line.infer(InferenceRequest(payloads=payloads))
    assert result.answers is not None
    assert [answer["class"][0]["label"] for answer in result.answers] == ["4", "8", "16"]


async def test_timings_are_told_by_node_where_they_are_asked_for() -> None:
    async with pipeline(CASCADE, detector(boxes(3)), classifier(always(LABELS), version=2)) as (line, _):
        result = await line.infer(ask({"node_timings": True}))
        assert result.answers is not None
        timings = result.answers[0]["node_timings"]
        assert list(timings) == [
            "detect", "sure", "best", "objects", "objects.crop", "objects.class", "objects.named"
        ]  # fmt: skip
        assert timings["objects.class"]["calls"] == 3
        assert timings["detect"]["end"] <= timings["best"]["start"] <= timings["objects"]["end"]
        assert "node_timings" not in (await line.infer(ask())).answers[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"at_leat": 1}, "The parameter 'at_leat' is not known; there are at_least, node_timings"),
        ({"at_least": "much"}, "The parameter 'at_least' is text, not number"),
        ({"at_least": None}, "The parameter 'at_least' is null, not number"),
    ],
)
async def test_wrong_parameters_are_refused(parameters: dict[str, Any], said: str) -> None:
    async with pipeline(CASCADE, detector(boxes(3)), classifier(always(LABELS), version=2)) as (line, _):
        with pytest.raises(InvalidInput, match=said):
            await line.infer(ask(parameters))


async def test_parameters_reach_the_nodes() -> None:
    async with pipeline(CASCADE, detector(boxes(3)), classifier(always(LABELS), version=2)) as (line, _):
        result = await line.infer(ask({"at_least": 0.95}))
    assert result.answers == [{"objects": []}]


async def test_a_photo_that_is_none_is_refused_as_by_a_model() -> None:
    async with pipeline(TWO, detector(boxes(1)), classifier(always(LABELS))) as (line, _):
        with pytest.raises(PlatformError, match="not an image") as found:
            await line.infer(InferenceRequest(payloads=[type(photo())(b"%PDF-1.7")]))
    assert found.value.status == 415


async def test_a_model_of_another_task_than_it_was_is_told() -> None:
    other = Scripted("classifier", "image-embedding", "image", always({"embedding": [1.0]}))
    async with pipeline(TWO, detector(boxes(1)), other) as (line, _):
        with pytest.raises(RunFailed, match="Node 'classify': its model is of another task"):
            await line.infer(ask())
    lacking = classifier(always({}))
    async with pipeline(TWO, detector(boxes(1)), lacking) as (line, _):
        with pytest.raises(RunFailed, match="Node 'classify': its model answered no 'predictions'"):
            await line.infer(ask())


async def test_a_text_goes_through_a_template_to_a_model() -> None:
    text = """
inputs: {sentence: text, language: {type: text, default: en}}
nodes:
  query: {op: text, template: "query ({language}): {sentence}", inputs: {sentence: sentence, language: language}}
  embed: {model: embedder, input: query}
outputs: {vector: embed.embedding, asked: query}
"""
    embedder = Scripted("embedder", "text-embedding", "text", always({"embedding": np.array([0.5, np.nan])}))
    async with pipeline(text, embedder) as (line, _):
        assert line.modality == "text"
        request = InferenceRequest(payloads=[type(photo())("grüße".encode())], parameters={"language": "de"})
        result = await line.infer(request)
        assert result.answers == [{"vector": [0.5, None], "asked": "query (de): grüße"}]
        with pytest.raises(InvalidInput, match="not UTF-8"):
            await line.infer(InferenceRequest(payloads=[type(photo())(b"\xff")]))


async def test_tensors_go_from_model_to_model() -> None:
    text = "inputs: {x: 'tensor FP32 [-1, 8]'}\nnodes:\n  a: {model: wide, input: x}\n"
    text += "  b: {model: narrow, input: a.y}\noutputs: {z: b.z}"

    class Half(Scripted):
        async def infer(self, request: InferenceRequest) -> Any:
            result = await super().infer(request)
            (array,) = (request.inputs or {}).values()
            result.answers, name = None, "y" if self.model == "wide" else "z"
            result.outputs = {name: array[:, : array.shape[1] // 2]}
            return result

    models = [Half(name, "tensor", "tensor", always({})) for name in ("wide", "narrow")]
    async with pipeline(text, *models) as (line, _):
        assert [spec.name for spec in line.signature.outputs] == ["z"]
        array = np.arange(16, dtype=np.float32).reshape(2, 8)
        result = await line.infer(InferenceRequest(inputs={"x": array}, raw=True))
        assert result.outputs is not None
        assert result.outputs["z"].tolist() == [[0, 1], [8, 9]]
        with pytest.raises(InvalidInput, match="Input 'x' must be FP32"):
            await line.infer(InferenceRequest(inputs={"x": array.astype(np.float64)}))
