"""Makes a Deployment from what the database and the store hold."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from core.control.artifact_choice import Choice, by_format, by_recommendation
from core.control.desired import DesiredDeployment
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
from core.serving.runner import LocalRunner, Runner, RunnerOptions
from core.serving.slot_policy import widths
from core.signature import Signature
from core.store.artifacts import ArtifactStore
from core.store.manifest import Manifest, manifest_from_json
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Task
from core.tasks.registry import task_class

log = structlog.get_logger(__name__)


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
    ) -> None:
        self._database = database
        self._store = store
        self._threads = threads
        self._run_dir = run_dir
        self._limits = limits
        self._always_hosted = always_hosted
        self._extras = extras or {}
        self.on_host_change: Callable[[], None] = lambda: None
        """Called when a host goes, and when it is back."""

    async def load(self, desired: DesiredDeployment, version: int, on_state: Callable[[str], None]) -> Deployment:
        """Load and warm one version. Raises LoadFailed and others of PlatformError, with nothing left open."""
        format_, manifest, root = await self._artifact(desired, version)
        uploaded = root / (manifest.model or "model.onnx")
        choice = await self._choose(desired, version, format_, uploaded)
        try:
            return await self._load(desired, version, manifest, root, choice, on_state)
        except EngineError as error:
            if choice.optimisation is None:
                raise
            # The version as it was uploaded may still do.
            reason = error.message
            log.warning("optimisation.not_loaded", model=desired.model, version=version, reason=reason)
        return await self._load(desired, version, manifest, root, by_format("auto", format_, uploaded), on_state)

    async def _load(
        self,
        desired: DesiredDeployment,
        version: int,
        manifest: Manifest,
        root: Path,
        choice: Choice,
        on_state: Callable[[str], None],
    ) -> Deployment:
        def make_task(signature: Signature) -> Task:
            return task_class(manifest.task)(manifest.task_config(), signature, root, self._limits)

        runner = self._runner(desired, version, choice, {} if choice.converted else manifest.engine_extra())
        options = DeploymentOptions(desired.model, version, desired.timeout_ms)
        deployment = Deployment(options, runner, make_task, self._threads)
        deployment.recipe = {
            "key": secrets.token_hex(8),
            "model": desired.model,
            "version": version,
            "timeout_ms": desired.timeout_ms,
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

    async def _choose(self, desired: DesiredDeployment, version: int, format_: str, artifact: Path) -> Choice:
        """With `auto` what was found to be the best; otherwise, and where that is stale, by the format."""
        optimisation = desired.optimised.get(str(version)) if desired.engine == "auto" else None
        if optimisation is not None:
            async with self._database.session() as session:
                choice = await by_recommendation(session, self._store, optimisation, artifact)
            if choice is not None:
                return choice
        return by_format(desired.engine, format_, artifact)

    def _runner(self, desired: DesiredDeployment, version: int, choice: Choice, told: dict[str, Any]) -> Runner:
        name = f"{desired.model}-v{version}"
        device = choice.device or desired.device
        options = RunnerOptions(
            name,
            **_slots(desired, device),
            max_batch=desired.max_batch,
            max_delay_ms=desired.max_delay_ms,
            queue_size=desired.queue_size,
        )
        bounds = options.bounds
        job = {
            "engine": choice.engine,
            "artifact": str(choice.artifact),
            "engine_options": {
                "device": device,
                "threads": choice.threads,
                "widths": widths(bounds) if bounds and not choice.threads else (),
                "extra": {**self._extra(choice.engine, desired), **told, **choice.extra},
            },
            "options": asdict(options),
        }
        hosted = self._always_hosted or engine_class(choice.engine).always_hosted
        if desired.isolation == "thread" and not hosted:
            return LocalRunner(options, lambda: make_engine(job))
        # Short, whatever the model is called: a socket's path may have 107 bytes.
        path = self._run_dir / f"{secrets.token_hex(8)}.sock"
        runner = HostedRunner(name, path, {**job, "socket": str(path)}, desired.queue_size)
        runner.process.on_change = lambda: self.on_host_change()
        return runner

    def _extra(self, engine: str, desired: DesiredDeployment) -> dict[str, Any]:
        extra = dict(self._extras.get(engine, {}))
        if engine == "tensorrt":  # builds for a largest batch
            extra["max_batch"] = desired.max_batch
        return extra

    async def _artifact(self, desired: DesiredDeployment, version: int) -> tuple[str, Manifest, Path]:
        async with self._database.session() as session:
            row = await Versions(session).get(desired.model_id, version)
        if row is None:
            raise LoadFailed(f"Version {version} does not exist.")
        if row.status != "valid":
            raise LoadFailed(f"Version {version} is {row.status}, and only a valid version can be served.")
        if not self._store.exists(row.sha256):
            raise LoadFailed(f"The files of version {version} are missing from the store; upload them again.")
        return row.format, manifest_from_json(row.manifest), self._store.path(row.sha256)


def _slots(desired: DesiredDeployment, device: str) -> dict[str, int]:
    """Its bounds. Off the cpu there are no cores to divide: slots are what is asked for."""
    if device != "cpu":
        return {"instances": desired.instances, "max_instances": desired.max_instances or desired.instances}
    cores = cores_available()
    most = desired.max_instances or max(desired.instances, cores)
    return {"instances": desired.instances, "max_instances": most, "cores": cores}
