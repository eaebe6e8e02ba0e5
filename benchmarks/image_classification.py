"""JPEG -> decode, crop, resize -> EfficientNet-lite0 -> top five, at 640x480 and 1920x1080.

`python -m benchmarks.image_classification --seconds 5 --rounds 3 --connections 1,16 --peers all`
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import options, report
from benchmarks.harness.peers import VENV_PEERS, Peer
from benchmarks.harness.pulvinar import PulvinarPeer
from benchmarks.harness.report import Reach, at_least
from benchmarks.harness.rounds import Comparison, compare
from benchmarks.harness.workload import photo

AIMS = {"jpeg-640x480": 1.35, "jpeg-1920x1080": 3.0}
ISOLATION_AIM = 0.95


def reaches(found: Comparison, connections: int) -> list[Reach]:
    """The aims over bare FastAPI, and what isolation may cost."""
    aims = [
        at_least(f"{work}, {connections} connections, over fastapi", aim,
                 found.ratio("pulvinar", "fastapi", work, connections))
        for work, aim in AIMS.items()
    ]  # fmt: skip
    cost = [
        at_least(f"{work}, isolation process over thread", ISOLATION_AIM,
                 found.ratio("pulvinar-process", "pulvinar", work, connections))
        for work in AIMS
    ]  # fmt: skip
    return aims + cost


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    own = (PulvinarPeer(), PulvinarPeer("pulvinar-process", {"isolation": "process"}))
    peers: dict[str, Peer] = {**{peer.name: peer for peer in own}, **VENV_PEERS}
    parser = options.with_peers(options.parser(__doc__ or "", connections="1,16"), list(peers))
    chosen = parser.parse_args(arguments)
    workloads = [photo(640, 480), photo(1920, 1080)]
    found = compare(
        [peers[name] for name in chosen.peers], workloads, chosen.connections, chosen.rounds, chosen.seconds
    )
    cases = [(work.name, count) for work in workloads for count in chosen.connections]
    report.save(
        "image_classification",
        vars(chosen),
        found.to_json(),
        [report.comparison_table(found, chosen.peers, work, count, "pulvinar") for work, count in cases],
        reaches(found, max(chosen.connections)),
        report.comparison_chart(found, "JPEG to top five, one core", chosen.peers, cases),
    )


if __name__ == "__main__":
    main()
