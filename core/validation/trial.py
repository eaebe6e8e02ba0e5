"""One model under test. Runs in the validator's process only: it loads `onnx` and the engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.engines.base import Engine, EngineOptions
from core.engines.registry import engine_class, engines_for
from core.errors import EngineUnavailable, InvalidPackage, PlatformError, RunFailed
from core.signature import Signature
from core.store.manifest import Manifest, manifest_from_json
from core.store.paths import check_member
from core.tasks.base import Task
from core.tasks.registry import task_class
from core.tasks.stepped import SteppedTask, answer_of
from core.validation.external_data import check_tree
from core.validation.files import FILES, ModelFile
from core.validation.memory import is_out_of_memory, peak_memory_bytes
from core.validation.samples import Arrays, Sizes, candidates, example_of, make_inputs

_MEDIA: Final = {"image": "picture", "text": "text", "audio": "recording"}
_LATENCY_RUNS: Final = 5
_LATENCY_BUDGET_S: Final = 10.0


class Trial:
    """One model under test: each check is a method that returns what it found or raises what is wrong."""

    def __init__(self, root: Path, manifest: Mapping[str, Any], *, trust_plans: bool = False) -> None:
        self.root = root
        self.signature: Signature | None = None
        self.latency_ms: float | None = None
        self._raw_manifest = manifest
        self._trust_plans = trust_plans
        self._manifest = Manifest()
        self._path = root
        self._file: ModelFile | None = None
        self._others: list[ModelFile] = []
        self._engine: Engine | None = None
        self._task: Task | None = None
        self._sizes = Sizes(1)
        self._outputs: dict[int, Arrays] = {}

    def manifest(self) -> str:
        """The manifest is one, and the package holds the model and nothing but plain files."""
        self._manifest = manifest_from_json(self._raw_manifest)
        self._path = self.root / (self._manifest.model or "model.onnx")
        check_tree(self.root)
        if not self._path.is_file():
            raise InvalidPackage("The package does not hold the model that the manifest names.")
        return f"The manifest is complete; the task is {self._manifest.task}."

    def parse(self) -> str:
        """The whole file is of its format."""
        format_ = self._manifest.format or "onnx"
        if format_ not in FILES:
            raise InvalidPackage(f"Models of the format {format_[:32]} are not accepted.")
        self._file = FILES[format_](self._path)
        found = self._file.parse()
        self._others = [FILES["onnx"](path) for path in self._other_paths()]
        for other in self._others:
            other.parse()
        return found

    def external_data(self) -> str:
        """Weights kept in files of their own lie in the package."""
        return self._each(lambda file: file.external_data())

    def operators(self) -> str:
        """The engine can know every operator."""
        return self._each(lambda file: file.operators())

    def structure(self) -> str:
        """The graph keeps its format's rules."""
        return self._each(lambda file: file.structure())

    def load(self) -> str:
        """The engine takes the model."""
        engine = self._make_engine()
        started = time.perf_counter()
        self.signature = engine.load(self._path, self._options(engine))
        self._engine = engine
        return f"Loaded by the engine {engine.name} in {(time.perf_counter() - started) * 1000:.0f} ms."

    def check_signature(self) -> str:
        """There is something to put in and something to get out."""
        signature = _known(self.signature)
        if not signature.inputs or not signature.outputs:
            raise InvalidPackage("The model has no inputs or no outputs; export it with both.")
        why_not = signature.why_not_batchable()
        batches = f"Requests cannot be batched: {why_not}." if why_not else "Requests can be batched."
        return f"Inputs {_listed(signature.inputs)}; outputs {_listed(signature.outputs)}. {batches}"

    def bind_task(self) -> str:
        """The manifest's task fits the signature."""
        kind = task_class(self._manifest.task)
        config = self._manifest.task_config()
        kind.check(config)
        self._task = kind(config, _known(self.signature), self.root)
        return f"The task {self._manifest.task} fits the model's inputs and outputs."

    def dry_run(self) -> str:
        """The model runs on made-up inputs, with a batch of 1 and, where that may vary, of 2."""
        signature = _known(self.signature)
        self._outputs[1] = self._first_run(signature)
        others = self._sizes.describe(signature)
        if not any(spec.shape[:1] == (-1,) for spec in signature.inputs):
            return f"Ran on generated inputs of the model's fixed batch{others}."
        if self._manifest.batching.max_batch == 1:
            return f"Ran on generated inputs with a batch of 1, as batching.max_batch asks{others}."
        self._outputs[2] = self._second_run(signature)
        return f"Ran on generated inputs with batches of 1 and 2{others}."

    def example(self) -> str:
        """A picture, a text or a recording goes all the way through the task: to the model, and to an answer."""
        task, engine = _known(self._task), _known(self._engine)
        payload = example_of(task)
        if payload is None:
            return f"Not needed for {task.modality} tasks."
        if isinstance(task, SteppedTask):
            answer = answer_of(task.steps(payload, {}), engine.run)
            return f"A generated {_MEDIA[task.modality]} was answered with {', '.join(sorted(answer))}."
        count = max(1, _known(self.signature).inputs[0].shape[0])  # a fixed batch takes no fewer
        said = task.example_parameters()
        prepared = task.preprocess([payload] * count, said)
        outputs = engine.run(prepared.inputs)
        task.check_outputs(outputs)
        answers = task.postprocess(outputs, prepared.contexts, said)
        if len(answers) != count:
            raise InvalidPackage(f"{count} examples gave {len(answers)} answers; check the model's batch axis.")
        task.probe(engine.run)
        return f"A generated {_MEDIA[task.modality]} was answered with {', '.join(sorted(answers[0]))}."

    def finite(self) -> str:
        """No NaN and no infinity comes out."""
        for outputs in self._outputs.values():
            for name, value in outputs.items():
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    raise InvalidPackage(
                        f"The output {name} holds NaN or infinity for plain inputs; look for divisions by zero, "
                        "logarithms, or weights that overflow (float16), and export again."
                    )
        return "All outputs are finite."

    def latency(self) -> str:
        """How long one item takes, on one thread."""
        engine, inputs = _known(self._engine), make_inputs(_known(self.signature), self._sizes, 1)
        times: list[float] = []
        while len(times) < _LATENCY_RUNS and sum(times) < _LATENCY_BUDGET_S:
            started = time.perf_counter()
            engine.run(inputs)
            times.append(time.perf_counter() - started)
        self.latency_ms = round(statistics.median(times) * 1000, 3)
        return f"{self.latency_ms:g} ms for one item on one thread, the median of {len(times)} runs."

    def memory(self) -> str:
        """How much memory the whole trial took."""
        return f"{peak_memory_bytes() / (1 << 20):.0f} MiB at the peak, libraries included."

    def _other_paths(self) -> list[Path]:
        """The task's own models. A task that is unknown or misses one is found out when it is bound."""
        try:
            names = task_class(self._manifest.task).other_models(self._manifest.task_config())
            paths = [self.root / check_member(name) for name in names]
        except PlatformError:
            return []
        return [path for path in paths if path.is_file()]

    def _each(self, check: Callable[[ModelFile], str]) -> str:
        """A check of the model and of those that the task runs beside it."""
        found = check(_known(self._file))
        for other in self._others:
            check(other)
        return found

    def _options(self, engine: Engine) -> EngineOptions:
        devices, extra = engine.info().devices, self._manifest.engine_extra()
        if self._manifest.format == "tensorrt":
            extra["trust_plans"] = self._trust_plans
        return EngineOptions("cpu" if "cpu" in devices else devices[0], threads=1, extra=extra)

    def _make_engine(self) -> Engine:
        """The best engine for the format that can be used here. Raises EngineUnavailable."""
        format_ = self._manifest.format or "onnx"
        names = engines_for(format_)
        usable = [name for name in names if engine_class(name).info().available]
        if not usable:
            hint = " or ".join(engine_class(name).info().hint or name for name in names) or "there is none"
            raise EngineUnavailable(f"No engine here runs {format_} models: {hint}. Validate again once there is.")
        return engine_class(usable[0])()

    def _first_run(self, signature: Signature) -> Arrays:
        failure: RunFailed | None = None
        for sizes in candidates(signature, self._manifest.preprocess):
            try:
                outputs: Arrays = _known(self._engine).run(make_inputs(signature, sizes, 1))
            except RunFailed as error:
                if is_out_of_memory(error):
                    raise
                failure = failure or error
                continue
            self._sizes = sizes
            return outputs
        raise InvalidPackage(
            f"The model does not run on generated inputs: {failure.message if failure else ''} Check its axes, or "
            "export it with fixed sizes."
        ) from failure

    def _second_run(self, signature: Signature) -> Arrays:
        mend = "export it with a batch axis that really varies, or set `batching: {max_batch: 1}` in model.yaml"
        try:
            outputs: Arrays = _known(self._engine).run(make_inputs(signature, self._sizes, 2))
        except RunFailed as error:
            if is_out_of_memory(error):
                raise
            raise InvalidPackage(
                f"The model runs on one item but not on two: {error.message} Please {mend}."
            ) from error
        if signature.why_not_batchable() is None:
            for name, value in outputs.items():
                if len(value) != 2:
                    raise InvalidPackage(f"The output {name} has {len(value)} rows for a batch of 2; {mend}.")
        return outputs


def _known(value: Any) -> Any:
    assert value is not None, "the table of checks names what each one needs"
    return value


def _listed(specs: Any) -> str:
    return ", ".join(f"{spec.name[:80]} {spec.dtype} {list(spec.shape)}" for spec in specs[:8])
