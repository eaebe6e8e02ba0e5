"""A conversion in a process of its own: its job, what runs in that process, and the half that starts and ends it.

By hand: `python -m core.optimiser.convert_child JOB.json`, a job as `ConvertJob.to_json` makes it.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import ConversionFailed
from core.optimiser.confined import DEFAULT_LIMITS, ConvertLimits, answer_job, ask
from core.optimiser.converted import Converted

__all__ = ["ConvertJob", "ConvertLimits", "run_conversion"]


@dataclass(frozen=True, slots=True)
class ConvertJob:
    """One conversion: its name, the model file, the folder for the result, and feeds in .npz files."""

    name: str
    source: Path
    into: Path
    feeds: Sequence[Path] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What the process reads, but for the limits."""
        return {
            "name": self.name,
            "source": str(self.source.absolute()),
            "into": str(self.into.absolute()),
            "feeds": [str(path.absolute()) for path in self.feeds],
            "options": dict(self.options),
        }


async def run_conversion(job: ConvertJob, limits: ConvertLimits = DEFAULT_LIMITS) -> Converted:
    """Convert in a confined process; cancelling ends it. Raises ConversionFailed for whatever becomes of it.

    `job.into` must be an empty folder; what a failure leaves in it is the caller's to remove.
    """
    what = f"The conversion {job.name}"
    done = await ask("core.optimiser.convert_child", job.to_json(), limits, what)
    try:
        return await asyncio.to_thread(_checked, done, job.into)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConversionFailed(f"{what} answered with something that is no result.") from error


def _checked(done: Any, into: Path) -> Converted:
    """The result, if it is a plain file in the folder it was to go to, among plain files."""
    made, root = Converted.from_json(done), into.resolve()
    if made.path.resolve().parent != root or not made.path.is_file():
        raise ValueError("a result elsewhere, or none")
    for entry in root.iterdir():
        if not stat.S_ISREG(entry.lstat().st_mode):
            raise ValueError("a result that is no plain file")
    return made


def main() -> None:
    """Run one job."""
    answer_job(_convert)


def _convert(job: Mapping[str, Any]) -> dict[str, Any]:
    from core.optimiser.conversion import convert  # loads NumPy and the libraries: only within the limits
    from core.optimiser.feeds import NpzFeeds

    feeds = NpzFeeds([Path(path) for path in job["feeds"]])
    made = convert(job["name"], Path(job["source"]), Path(job["into"]), feeds, options=job["options"])
    return made.to_json()


if __name__ == "__main__":
    main()
