"""Makes a Deployment from what the database and the store hold."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from core.control.artifact_choice import Choice, as_uploaded, choose
from core.control.desired import DesiredDeployment
from core.control.first_run import Arrays, example_inputs
from core.control.host_log import HostLogs
from core.control.host_main import make_engine
from core.control.hosted import HostedRunner
from core.control.memory import guess
from core.control.rollout import VersionFacts
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.engines.cores import cores_available
from core.engines.registry import engine_class
from core.errors import EngineError, LoadFailed
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.ragged import CPU_TOKENS, DEVICE_TOKENS
from core.serving.result_cache import ResultStore
from core.serving.runner import LocalRunner, Runner, RunnerOptions
from core.serving.sequences import DEFAULT_SEQUENCES, SequenceLimits
from core.serving.slot_policy import widths
from core.serving.warm_up import pack_inputs
from core.signature import Signature
from core.store.artifacts import ArtifactStore
from core.store.manifest import Manifest, manifest_from_json
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Task
from core.tasks.registry import task_class


@dataclass(frozen=True, slots=True)
class _Stored:
    """A version as it was uploaded; its signature is what validation found."""

    format: str
    manifest: Manifest
    root: Path
    signature: Signature | None


class Loader:
    """Loads versions; the only one who knows the database, the store, the engines and the tasks together."""

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        threads: ThreadPoolExecutor,
        run_dir: Path,
        *,
        limits: MediaLimits = DEFAULT_LIMITS,
        always_hosted: bool = False,
        extras: Mapping[str, Mapping[str, Any]] | None = None,
        results: ResultStore | None = None,
        sequences: SequenceLimits = DEFAULT_SEQUENCES,
    ) -> None:
        self._database = database
        self._store = store
        self._threads = threads
        self._run_dir = run_dir
        self._limits = limits
        self._always_hosted = always_hosted
        self._extras = extras or {}
        self._results = results
        self._sequences = sequences
        self.logs = HostLogs()
        """What the hosts have written."""
        self.on_host_change: Callable[[], None] = lambda: None
        """Called when a host goes, and when it is back."""

    async def load(self, desired: DesiredDeployment, version: int, on_state: Callable[[str], None]) -> Deployment:
        """Load and warm one version. Raises LoadFailed and others of PlatformError, with nothing left open."""
        stored = await self._stored(desired, version)
        uploaded = stored.root / (stored.manifest.model or "model.onnx")
        async with self._database.session() as session:
            choice = await choose(session, self._store, desired, version, stored.format, uploaded)
        try:
            return await self._load(desired, version, stored, choice, on_state)
        except EngineError as error:
            if choice.optimisation is None:
                raise
            # The version as it was uploaded may still do.
            reason = f"that does not load. {error.message}"
            choice = as_uploaded(stored.format, uploaded, choice.optimisation, reason)
        return await self._load(desired, version, stored, choice, on_state)

    async def _load(
        self,
        desired: DesiredDeployment,
        version: int,
        stored: _Stored,
        choice: Choice,
        on_state: Callable[[str], None],
    ) -> Deployment:
        manifest, root = stored.manifest, stored.root

        @cache  # the warm-up's task serves
        def make_task(signature: Signature) -> Task:
            return task_class(manifest.task)(manifest.task_config(), signature, root, self._limits)

        told = {} if choice.converted else manifest.engine_extra()
        runner = await self._runner(desired, version, choice, told, partial(example_inputs, make_task), stored)
        options = DeploymentOptions(desired.model, version, desired.timeout_ms, desired.cache)
        deployment = Deployment(options, runner, make_task, self._threads, self._results)
        deployment.note = choice.note
        deployment.search = None if choice.plain else choice.optimisation
        deployment.recipe = {
            "key": secrets.token_hex(8),
            "model": desired.model,
            "version": version,
            "timeout_ms": desired.timeout_ms,
            "cache": desired.cache,
            "queue_size": desired.queue_size,
            "manifest": manifest.to_json(),
            "root": str(root),
            "socket": str(runner.socket_path) if isinstance(runner, HostedRunner) else "",
        }
        await deployment.start(on_state)
        return deployment

    async def describe(self, desired: DesiredDeployment) -> Mapping[int, VersionFacts]:
        """What is known of the desired versions without loading them; those that are gone are left out."""
        async with self._database.session() as session:
            rows = [await Versions(session).get(desired.model_id, version) for version in desired.versions]
        hosted = self._always_hosted or desired.isolation == "process"
        found = {}
        for row in rows:
            if row is not None:
                task = task_class(manifest_from_json(row.manifest).task)
                signature = Signature.from_json(row.signature) if row.signature else Signature((), ())
                found[row.version] = VersionFacts(
                    row.size_bytes, guess(row.size_bytes, hosted=hosted), task.name, task.modality, signature
                )
        return found

    async def _runner(
        self,
        desired: DesiredDeployment,
        version: int,
        choice: Choice,
        told: dict[str, Any],
        example: Callable[[Signature], Arrays | None],
        stored: _Stored,
    ) -> Runner:
        name = f"{desired.model}-v{version}"
        device = choice.device or desired.device
        options = RunnerOptions(
            name,
            **_slots(desired, device),
            max_batch=desired.max_batch,
            max_tokens=desired.max_tokens or (CPU_TOKENS if device == "cpu" else DEVICE_TOKENS),
            max_delay_ms=desired.max_delay_ms,
            queue_size=desired.queue_size,
        )
        bounds = options.bounds
        job: dict[str, Any] = {
            "engine": choice.engine,
            "artifact": str(choice.artifact),
            "engine_options": {
                "device": device,
                "threads": choice.threads,
                "widths": widths(bounds) if bounds and not choice.threads else (),
                "extra": {**self._extra(choice.engine, desired), **told, **choice.extra},
            },
            "options": asdict(options),
            "sequences": asdict(self._sequences),
        }
        hosted = self._always_hosted or engine_class(choice.engine).always_hosted
        if desired.isolation == "thread" and not hosted:
            return LocalRunner(options, lambda: make_engine(job), self._sequences, example)
        if stored.signature is not None:  # the host has no tasks: what is to be run first is made here
            job["example"] = pack_inputs(await asyncio.to_thread(example, stored.signature))
        # Short, whatever the model is called: a socket's path may have 107 bytes.
        path = self._run_dir / f"{secrets.token_hex(8)}.sock"
        log = self.logs.open(desired.model, version)
        runner = HostedRunner(name, path, {**job, "socket": str(path)}, desired.queue_size, log)
        runner.process.on_change = lambda: self.on_host_change()
        return runner

    def _extra(self, engine: str, desired: DesiredDeployment) -> dict[str, Any]:
        extra = dict(self._extras.get(engine, {}))
        if engine == "tensorrt":  # builds for a largest batch
            extra["max_batch"] = desired.max_batch
        return extra

    async def _stored(self, desired: DesiredDeployment, version: int) -> _Stored:
        async with self._database.session() as session:
            row = await Versions(session).get(desired.model_id, version)
        if row is None:
            raise LoadFailed(f"Version {version} does not exist.")
        if row.status != "valid":
            raise LoadFailed(f"Version {version} is {row.status}, and only a valid version can be served.")
        if not self._store.exists(row.sha256):
            raise LoadFailed(f"The files of version {version} are missing from the store; upload them again.")
        signature = Signature.from_json(row.signature) if row.signature else None
        return _Stored(row.format, manifest_from_json(row.manifest), self._store.path(row.sha256), signature)


def _slots(desired: DesiredDeployment, device: str) -> dict[str, int]:
    """Its bounds. Off the cpu there are no cores to divide: slots are what is asked for."""
    if device != "cpu":
        return {"instances": desired.instances, "max_instances": desired.max_instances or desired.instances}
    cores = cores_available()
    most = desired.max_instances or max(desired.instances, cores)
    return {"instances": desired.instances, "max_instances": most, "cores": cores}
