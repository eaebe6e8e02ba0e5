"""What each step of the hot path buys: Pulvinar as it is, against itself with one step taken back.

`python -m benchmarks.hot_path --seconds 5 --rounds 3 --connections 1,16,64`
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.harness import options, report
from benchmarks.harness.peers import Kind
from benchmarks.harness.pulvinar import PulvinarPeer
from benchmarks.harness.rounds import Comparison, compare
from benchmarks.harness.server import Server
from benchmarks.harness.workload import TINY, Workload, photo

_RUN = "import sys; sys.argv[0] = 'run.py'; import run; run.main()"
STEPS: dict[str, str] = {
    "as-it-is": "",
    "no-express": "from app.external.express import Express; Express.wants = lambda self, scope: False",
    "no-inline": "import core.serving.inline_policy as policy; policy.INLINE_S = 0.0",
    "no-calm-collector": "import app.lifespan as lifespan; lifespan.calm_collector = lambda: None",
}
"""What is run before the server, to take a step of `docs/decisions/010` back."""
PHOTO_STEPS: dict[str, str] = {
    "as-it-is": "",
    "pillow-resize": (
        "from core.media import resample, resize\n"
        "resample.resample = lambda pixels, box, size, how='bicubic': "
        "resize.resample(pixels, box, size, how).transpose(2, 0, 1).astype('float32')"
    ),
    "pillow-decode": (
        "from core.media import images; images._decode_jpeg = "
        "lambda data, image, at_least: images._decode_with_pillow(image, 'JPEG')"
    ),
    "reduced-decode": (
        "from core.tasks.image_input import ImageInput; whole = ImageInput._decode_size; "
        "ImageInput._decode_size = lambda self: tuple(side * 2 // 3 for side in whole(self))"
    ),
}
"""The same for photos; the last is no step taken back but one not taken: images reduced while they are decoded."""


@dataclass
class Variant(PulvinarPeer):
    """Pulvinar with something done before it starts."""

    before: str = ""

    def start(self, kind: Kind, cores: Iterable[int] | None) -> Server:
        """Serve what was prepared, differently."""
        assert self.installation is not None
        return self.installation.start(cores, program=[sys.executable, "-c", f"{self.before}\n{_RUN}"])


def measure(
    steps: dict[str, str], workloads: Sequence[Workload], connections: Sequence[int], rounds: int, seconds: float
) -> Comparison:
    """All variants side by side."""
    return compare([Variant(name, before=steps[name]) for name in steps], workloads, connections, rounds, seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    chosen = options.parser(__doc__ or "", connections="1,16,64").parse_args(arguments)
    photos = [photo(640, 480), photo(1920, 1080)]
    tiny = measure(STEPS, [TINY], chosen.connections, chosen.rounds, chosen.seconds)
    large = measure(PHOTO_STEPS, photos, [16], chosen.rounds, chosen.seconds)
    tables = [
        report.comparison_table(tiny, list(STEPS), TINY.name, count, "as-it-is") for count in chosen.connections
    ]
    tables += [report.comparison_table(large, list(PHOTO_STEPS), work.name, 16, "as-it-is") for work in photos]
    report.save(
        "hot_path",
        vars(chosen),
        {"tiny": tiny.to_json(), "photos": large.to_json()},
        tables,
        [],
        report.comparison_chart(
            tiny, "Steps of the hot path", list(STEPS), [(TINY.name, count) for count in chosen.connections]
        ),
    )


if __name__ == "__main__":
    main()
