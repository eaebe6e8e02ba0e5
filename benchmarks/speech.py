"""Whisper tiny.en over HTTP against the library called directly: the same text, and how much more time?

`python -m benchmarks.speech --rounds 5`
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import options, report
from benchmarks.harness.places import scratch
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import at_most
from benchmarks.harness.server import Server
from core.engines.cores import cores_available
from tests.speech import clips, whisper_folder, whisper_package

OVERHEAD_PERCENT = 5.0

Transcribe = Callable[[Path], str]


@dataclass
class Clip:
    """One sentence: what each said, and in how many seconds, round by round."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median_s(self, who: str) -> float:
        """Of all rounds."""
        return statistics.median(self.seconds[who])


def directly(threads: int) -> Transcribe:
    """faster-whisper with the same model, precision, threads and beams."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(whisper_folder()), device="cpu", cpu_threads=threads, compute_type="int8")

    def transcribe(clip: Path) -> str:
        segments, _ = model.transcribe(str(clip), beam_size=5)
        return "".join(segment.text for segment in segments).strip()

    return transcribe


def over_http(server: Server, token: str) -> Transcribe:
    """One connection, kept."""
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", headers={"X-Access-Token": token}, timeout=60
    )

    def transcribe(clip: Path) -> str:
        answer = client.post("/api/v1/inference/speech", content=clip.read_bytes())
        answer.raise_for_status()
        return str(answer.json()["text"])

    return transcribe


def measure(rounds: int) -> list[Clip]:
    """Both in turn, clip by clip, after one round that does not count."""
    installation = Installation("speech")
    package = scratch("models") / "speech.zip"
    package.write_bytes(whisper_package())
    installation.add_model("speech", package)
    token = installation.create_token()
    found = [Clip(clip.stem) for clip in clips()]
    with installation.start(None) as server:
        ways = {"library": directly(cores_available()), "pulvinar": over_http(server, token)}
        for number in range(rounds + 1):
            for clip, path in zip(found, clips(), strict=True):
                # The one that comes second finds a warmer machine: they take turns.
                for who in sorted(ways, reverse=bool(number % 2)):
                    began = time.perf_counter()
                    clip.texts[who] = ways[who](path)
                    if number:
                        clip.seconds.setdefault(who, []).append(time.perf_counter() - began)
    return found


def rows(found: Sequence[Clip]) -> list[list[str]]:
    """A line a clip."""
    return [
        [
            clip.name,
            f"{clip.median_s('library'):.3f}",
            f"{clip.median_s('pulvinar'):.3f}",
            "yes" if clip.texts["library"] == clip.texts["pulvinar"] else "NO",
        ]
        for clip in found
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    chosen = options.parser(__doc__ or "", rounds=5, connections="1").parse_args(arguments)
    found = measure(chosen.rounds)
    library, ours = (sum(clip.median_s(who) for clip in found) for who in ("library", "pulvinar"))
    different = sum(clip.texts["library"] != clip.texts["pulvinar"] for clip in found)
    kept: dict[str, Any] = {clip.name: {"texts": clip.texts, "seconds": clip.seconds} for clip in found}
    report.save(
        "speech",
        vars(chosen),
        {"clips": kept},
        [report.table(["clip", "library s", "over HTTP s", "same text"], rows(found))],
        [
            at_most("clips of five with another text than the library's", 0, different, ""),
            at_most("more time than the library, all clips", OVERHEAD_PERCENT, (ours / library - 1) * 100, " %"),
        ],
    )


if __name__ == "__main__":
    main()
