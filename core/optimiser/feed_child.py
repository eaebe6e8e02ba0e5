"""Samples to engine inputs in a process of their own: images of strangers are decoded there, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import ConversionFailed, PlatformError
from core.optimiser.confined import DEFAULT_LIMITS, ConvertLimits, answer_job, ask
from core.optimiser.samples import StoredSample, engine_inputs, synthetic
from core.signature import Signature
from core.tasks.base import MediaLimits

_MAX_REASONS: Final = 20


@dataclass(frozen=True, slots=True)
class FeedJob:
    """Samples of one version: its manifest, files and signature; the feeds go into the folder `into`.

    Without samples, `synthetic_count` inputs are made up. What is written ends once it took `seconds` or has
    `max_bytes`, with one sample at least.
    """

    manifest: Mapping[str, Any]
    root: Path
    signature: Mapping[str, Any]
    samples: Sequence[StoredSample]
    into: Path
    max_pixels: int = MediaLimits().max_pixels
    synthetic_count: int = 32
    seconds: float = 240.0
    max_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Feeds:
    """Files of engine inputs; `ids` are the samples behind them, in order, none where they are made up.

    `left_out` says why samples could not be used, of the first twenty; `cut` why those after the last of `ids`
    were not looked at, as the end of a sentence; empty where all were.
    """

    paths: list[Path]
    ids: list[int]
    synthetic: bool
    left_out: list[str]
    cut: str = ""


async def make_feeds(job: FeedJob, limits: ConvertLimits = DEFAULT_LIMITS) -> Feeds:
    """Prepare samples as serving would. Raises ConversionFailed where not one of them can be used."""
    done = await ask("core.optimiser.feed_child", _to_json(job), limits, "The preparation of the samples")
    paths = [job.into / f"{number:06}.npz" for number in range(int(done["count"]))]
    ids, left_out = [int(one) for one in done["ids"]], [str(why) for why in done["left_out"]]
    return Feeds(paths, ids, not job.samples, left_out, str(done["cut"]))


def _to_json(job: FeedJob) -> dict[str, Any]:
    return {
        "manifest": dict(job.manifest),
        "root": str(job.root.absolute()),
        "signature": dict(job.signature),
        "samples": [[one.id, one.sha256, one.media_type, str(one.path.absolute())] for one in job.samples],
        "into": str(job.into.absolute()),
        "max_pixels": job.max_pixels,
        "synthetic_count": job.synthetic_count,
        "seconds": job.seconds,
        "max_bytes": job.max_bytes,
    }


def main() -> None:
    """Run one job."""
    answer_job(_prepare)


def _prepare(job: Mapping[str, Any]) -> dict[str, Any]:
    from core.optimiser.feeds import Bounds, write_feeds
    from core.store.manifest import manifest_from_json
    from core.tasks.registry import task_class

    bounds = Bounds(float(job["seconds"]), int(job["max_bytes"]))
    signature, manifest = Signature.from_json(job["signature"]), manifest_from_json(job["manifest"])
    if not job["samples"]:
        made_up = synthetic(signature, manifest.preprocess, int(job["synthetic_count"]))
        count = len(write_feeds(bounds.of(made_up), Path(job["into"])))
        return {"count": count, "ids": [], "left_out": [], "cut": bounds.cut}
    limits = MediaLimits(int(job["max_pixels"]))
    task = task_class(manifest.task)(manifest.task_config(), signature, Path(job["root"]), limits)
    ids: list[int] = []
    left_out: list[str] = []

    def usable() -> Any:
        for number, sha256, media_type, path in job["samples"]:
            try:
                inputs = engine_inputs(StoredSample(number, sha256, media_type, None, Path(path)), task, signature)
            except PlatformError as error:
                left_out.append(f"Sample {number}: {error.message}")
            except OSError:
                left_out.append(f"Sample {number}: its file is missing.")
            else:
                ids.append(number)
                yield inputs

    count = len(write_feeds(bounds.of(usable()), Path(job["into"])))
    if count == 0:
        raise ConversionFailed(f"No sample can be used. {left_out[0]}")
    return {"count": count, "ids": ids[:count], "left_out": left_out[:_MAX_REASONS], "cut": bounds.cut}


if __name__ == "__main__":
    main()
