"""Sentences of 5 to 100 words to vectors by MiniLM, on one core: Pulvinar, Pulvinar after a search, bare FastAPI.

All three are given the same ONNX file at 32 bits. The search is for throughput, with other sentences as samples;
half of them judge, and a cosine below 0.99 is never chosen. The vectors of 200 sentences are held against
sentence-transformers' own.

`python -m benchmarks.text_embedding --budget-s 180 --samples 120 --seconds 5 --rounds 3 --connections 32`
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import load, options, report
from benchmarks.harness.environments import python_of
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.peers import ONE_THREAD
from benchmarks.harness.places import PEERS, scratch
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import Reach, at_least
from benchmarks.harness.rounds import REFUSED, Comparison
from benchmarks.harness.server import Server, free_port
from benchmarks.harness.workload import Call
from benchmarks.optimiser import OptimisedPeer, trials_table
from tests import minilm
from tests.sentences import sentences

WORK, MODEL = "texts-5-100", "minilm"
HTTP_AIM, SEARCH_AIM, COSINE_AIM, EXACT_AIM = 1.5, 2.0, 0.99, 0.999
TEXTS = sentences(200)
TEXT_TYPE = {"Content-Type": "text/plain; charset=utf-8"}
_BARE = ("fastapi", "uvicorn", "uvloop", "httptools", "orjson", "tokenizers")
_MANIFEST = "task: text-embedding\npreprocess: {max_tokens: 256}\npostprocess: {pooling: mean}\n"


@dataclass
class Contender:
    """A server that can be started, and the calls for all sentences in its words."""

    name: str
    start: Callable[[], Server]
    calls: list[Call]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", connections="32")
    parser.add_argument("--budget-s", type=float, default=180)
    parser.add_argument("--samples", type=int, default=120)
    chosen = parser.parse_args(arguments)
    searched = OptimisedPeer("pulvinar-auto")
    auto = _pulvinar("pulvinar-auto")
    searched.installation = auto
    _search(auto, chosen.samples, chosen.budget_s)
    contenders = [_contender(_pulvinar("pulvinar")), _contender(auto), _fastapi()]
    found, cosines = _compare(contenders, chosen.connections, chosen.rounds, chosen.seconds)
    trials, recommendation = searched.found()
    names, cases = [one.name for one in contenders], [(WORK, count) for count in chosen.connections]
    report.save(
        "text_embedding",
        vars(chosen),
        {**found.to_json(), "trials": trials, "recommendation": recommendation, "least_cosine": cosines},
        [
            trials_table(trials, recommendation),
            *(report.comparison_table(found, names, work, count, "pulvinar-auto") for work, count in cases),
        ],
        _reaches(found, cosines, trials, recommendation, max(chosen.connections)),
        report.comparison_chart(found, "Sentences to vectors, one core", names, cases),
    )


def _reaches(
    found: Comparison,
    cosines: dict[str, float],
    trials: Sequence[dict[str, Any]],
    recommendation: dict[str, Any],
    connections: int,
) -> list[Reach]:
    chosen = trials[recommendation["trial"] - 1]
    loss = chosen["loss"] if chosen["loss"] is not None else 0.0
    return [
        at_least("least cosine to sentence-transformers, 200 sentences", EXACT_AIM, cosines.get("pulvinar"), ""),
        at_least("throughput of the chosen over onnx fp32", SEARCH_AIM, recommendation["gain"]),
        at_least("mean cosine of the chosen to fp32", COSINE_AIM, 1 - loss, ""),
        *(
            at_least(f"{connections} connections, {name} over fastapi", HTTP_AIM,
                     found.ratio(name, "fastapi", WORK, connections))
            for name in ("pulvinar-auto", "pulvinar")
        ),
    ]  # fmt: skip


class _Computing(Installation):
    """Every text is computed, though the load repeats them."""

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "PULVINAR_INFERENCE__CACHE_BYTES": "0"}


def _pulvinar(name: str) -> Installation:
    made = _Computing(name)
    package = scratch("models") / f"{name}.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.write(minilm.exported(), "model.onnx")
        archive.write(minilm.weights() / "tokenizer.json", "tokenizer.json")
        archive.writestr("model.yaml", _MANIFEST)
    made.add_model(MODEL, package)
    made.create_token()
    return made


def _search(made: Installation, samples: int, budget_s: float) -> None:
    file = made.data_dir / "samples.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for number, text in enumerate(sentences(samples, seed=1)):
            archive.writestr(f"{number:04}.txt", text)
    made.cli("model", "samples", "add", MODEL, str(file))
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {server_core()})
    try:
        asked = ("--objective", "throughput", "--budget-s", str(budget_s))
        print(made.cli("model", "optimise", MODEL, *asked), flush=True)
    finally:
        os.sched_setaffinity(0, everything)


def _contender(made: Installation) -> Contender:
    headers = {**TEXT_TYPE, "X-Access-Token": made.token}
    calls = [Call(f"/api/v1/inference/{MODEL}", headers, text.encode()) for text in TEXTS]
    return Contender(made.name, lambda: made.start([server_core()]), calls)


def _fastapi() -> Contender:
    def start() -> Server:
        port, python = free_port(), python_of("bare-texts", _BARE)
        quiet = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
        command = [str(python), "-m", "uvicorn", "fastapi_texts:app", "--host", "127.0.0.1", "--port", str(port)]
        tokenizer = minilm.weights() / "tokenizer.json"
        env = {
            **ONE_THREAD,
            "BENCH_TEXTS": str(minilm.exported()),
            "BENCH_TOKENIZER": str(tokenizer),
            "TOKENIZERS_PARALLELISM": "false",
        }
        server = Server("fastapi", [*command, *quiet], port, env, [server_core()], cwd=Path(PEERS))
        try:
            server.wait_ready("/health")
        except BaseException:
            server.stop()
            raise
        return server

    return Contender("fastapi", start, [Call("/embed", TEXT_TYPE, text.encode()) for text in TEXTS])


def _compare(
    contenders: Sequence[Contender], connections: Sequence[int], rounds: int, seconds: float
) -> tuple[Comparison, dict[str, float]]:
    """Interleaved rounds, one server alive at a time; also each one's least cosine to the reference."""
    found, cosines = Comparison(), dict[str, float]()
    reference = minilm.reference(TEXTS)
    for index in range(rounds):
        for one in contenders:
            if one.name in found.absent:
                continue
            print(f"round {index + 1}/{rounds}: {one.name}", flush=True)
            try:
                with one.start() as server:
                    if one.name not in cosines:
                        cosines[one.name] = _least_cosine(server, one.calls, reference)
                        print(f"  least cosine {cosines[one.name]:.5f}", flush=True)
                    for count in connections:
                        run = load.run(server.port, one.calls, count, seconds, [load_core()])
                        found.runs.setdefault((one.name, WORK, count), []).append(run)
                        print(f"  c={count}: {run.requests_per_s:,.1f}/s p50 {run.p50_ms:.1f} ms "
                              f"p99 {run.p99_ms:.1f} ms failures {run.failures}", flush=True)  # fmt: skip
            except REFUSED as error:
                found.absent[one.name] = f"{type(error).__name__}: {error}"
                print(f"  {one.name}: {found.absent[one.name]}", flush=True)
    return found, cosines


def _least_cosine(server: Server, calls: Sequence[Call], reference: np.ndarray[Any, Any]) -> float:
    vectors = []
    for call in calls:
        status, body = server.post(call.path, call.headers, call.body)
        if status != 200:
            raise load.LoadFailed(f"answered {status}: {body[:200].decode(errors='replace')}")
        vectors.append(json.loads(body)["embedding"])
    answers = np.array(vectors)
    lengths = np.linalg.norm(answers, axis=1) * np.linalg.norm(reference, axis=1)
    return float(((answers * reference).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    main()
