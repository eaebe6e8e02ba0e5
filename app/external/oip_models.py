"""Models as the Open Inference Protocol v2 sees them: which versions answer, and how they are served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.state import Platform
from core.control.deploying import find_model
from core.database.repositories.deployments import Deployments
from core.database.repositories.versions import Versions
from core.engines.registry import engines_for
from core.errors import BadRequest
from core.pipelines.target import TASK, Pipeline
from core.serving.target import Target
from core.signature import TensorSpec

# Triton's names of what runs a model; the protocol's `platform` is this and the format: `onnxruntime_onnx`.
_BACKENDS: Final = {"onnx": "onnxruntime"}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What runs a version, and how it is desired to be served. Times in milliseconds, sizes in items."""

    backend: str
    platform: str
    device: str
    instances: int
    max_batch: int
    max_delay_ms: float
    queue_size: int
    timeout_ms: int


def version_number(version: str | None) -> int | None:
    """The number in the path, where there is one. Raises BadRequest."""
    if version is None:
        return None
    if not version.isascii() or not version.isdigit() or len(version) > 9:
        raise BadRequest("The version in the path must be a whole number.")
    return int(version)


def live_targets(platform: Platform, name: str, version: str | None) -> list[Target]:
    """The live versions of a model, loaded or idle, newest first, or the one asked for.

    Raises ModelNotFound, BadRequest, or NotReady for what should serve but does not yet.
    """
    number = version_number(version)
    targets = platform.catalogue.callable_targets(name)
    if number is not None:
        targets = [target for target in targets if target.version == number]
    if not targets:
        raise platform.catalogue.why_not(name, number)
    return sorted(targets, key=lambda target: -target.version)


async def read_facts(platform: Platform, target: Target) -> ModelFacts:
    """What the database says about a version that answers. Raises ModelNotFound."""
    if isinstance(target, Pipeline):
        options = target.options
        return ModelFacts(TASK, TASK, "cpu", 1, 0, 0.0, options.queue_size, options.timeout_ms)
    async with platform.database.session() as session:
        model = await find_model(session, target.model)
        desired = await Deployments(session).get(model.id)
        row = await Versions(session).get(model.id, target.version)
    spec: dict[str, Any] = desired.spec if desired is not None else {}
    format_ = row.format if row is not None else "unknown"
    backend = _backend(str(spec.get("engine", "auto")), format_)
    return ModelFacts(
        backend=backend,
        platform=f"{backend}_{format_}",
        device=str(spec.get("device") or "cpu"),
        instances=int(spec.get("instances") or 1),
        max_batch=int(spec.get("max_batch") or 1),
        max_delay_ms=float(spec.get("max_delay_ms") or 0),
        queue_size=int(spec.get("queue_size") or 0),
        timeout_ms=int(spec.get("timeout_ms") or 0),
    )


def model_config(target: Target, versions: Sequence[int], facts: ModelFacts) -> dict[str, Any]:
    """The configuration in the words of the model configuration extension.

    `max_batch_size` is 0 where the first axis is no batch axis; otherwise `dims` leave that axis out.
    """
    batched = target.signature.why_not_batchable() is None
    config: dict[str, Any] = {
        "name": target.model,
        "platform": facts.platform,
        "backend": facts.backend,
        "version_policy": {"specific": {"versions": sorted(versions)}},
        "max_batch_size": facts.max_batch if batched else 0,
        "input": [_config_tensor(spec, batched) for spec in target.signature.inputs],
        "output": [_config_tensor(spec, batched) for spec in target.signature.outputs],
        "instance_group": [
            {
                "name": f"{target.model}_0",
                "kind": "KIND_CPU" if facts.device == "cpu" else "KIND_GPU",
                "count": facts.instances,
            }
        ],
        "model_transaction_policy": {"decoupled": False},
    }
    if batched:
        config["dynamic_batching"] = _dynamic_batching(facts)
    return config


def _backend(engine: str, format_: str) -> str:
    name = next(iter(engines_for(format_)), "unknown") if engine == "auto" else engine
    return _BACKENDS.get(name, name)


def _config_tensor(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}",
        "dims": list(spec.shape[1:] if batched else spec.shape),
    }


def _dynamic_batching(facts: ModelFacts) -> dict[str, Any]:
    return {
        "preferred_batch_size": [facts.max_batch],
        "max_queue_delay_microseconds": round(facts.max_delay_ms * 1000),
        "priority_levels": 10,
        "default_priority_level": 6,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": facts.timeout_ms * 1000,
            "allow_timeout_override": True,
            "max_queue_size": facts.queue_size,
        },
    }
