"""64 floats as JSON -> MatMul -> 10 floats: what a server costs when the model costs nothing.

`python -m benchmarks.tiny_tensor --seconds 5 --rounds 3 --connections 1,16,64 --peers all`
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import options, report
from benchmarks.harness.peers import VENV_PEERS, Peer
from benchmarks.harness.pulvinar import PulvinarPeer
from benchmarks.harness.report import Reach, at_least, at_most
from benchmarks.harness.rounds import Comparison, compare
from benchmarks.harness.workload import TINY

AIMS = {"fastapi": 2.0, "litserve": 6.0, "triton": 6.0, "bentoml": 12.0}
"""How many times as fast as each peer Pulvinar means to be."""
SLOWER_MS = 0.15


def reaches(found: Comparison, connections: Sequence[int]) -> list[Reach]:
    """The aims for the connections measured."""
    aims = [
        at_least(f"tiny, {count} connections, over {peer}", aim, found.ratio("pulvinar", peer, "tiny", count))
        for count in connections
        if count > 1
        for peer, aim in AIMS.items()
    ]
    if 1 in connections:
        own, raw = found.median("pulvinar", "tiny", 1), found.median("raw-asgi", "tiny", 1)
        more = own.p50_ms - raw.p50_ms if own and raw else None
        aims.append(at_most("tiny, one connection, p50 over raw-asgi", SLOWER_MS, more, " ms"))
    return aims


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    peers: dict[str, Peer] = {"pulvinar": PulvinarPeer(), **VENV_PEERS}
    parser = options.with_peers(options.parser(__doc__ or "", connections="1,16,64"), list(peers))
    chosen = parser.parse_args(arguments)
    found = compare(
        [peers[name] for name in chosen.peers], [TINY], chosen.connections, chosen.rounds, chosen.seconds
    )
    report.save(
        "tiny_tensor",
        vars(chosen),
        found.to_json(),
        [report.comparison_table(found, chosen.peers, "tiny", count, "pulvinar") for count in chosen.connections],
        reaches(found, chosen.connections),
        report.comparison_chart(
            found, "Tiny model, one core", chosen.peers, [("tiny", count) for count in chosen.connections]
        ),
    )


if __name__ == "__main__":
    main()
