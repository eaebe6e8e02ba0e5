"""The command line that all benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def parser(
    description: str, *, seconds: float = 5, rounds: int = 3, connections: str = "16"
) -> argparse.ArgumentParser:
    """`--seconds`, `--rounds`, `--connections`, `--no-save`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=float, default=seconds, help="length of one measurement")
    made.add_argument("--rounds", type=int, default=rounds, help="times that all are measured in turn")
    made.add_argument("--connections", type=numbers, default=numbers(connections), help="such as 1,16,64")
    made.add_argument("--no-save", action="store_true", help="print only; leave the kept results as they are")
    return made


def with_peers(made: argparse.ArgumentParser, names: Sequence[str]) -> argparse.ArgumentParser:
    """`--peers all` or names."""

    def chosen(text: str) -> list[str]:
        wanted = list(names) if text == "all" else text.split(",")
        if unknown := set(wanted) - set(names):
            raise argparse.ArgumentTypeError(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(names)}")
        return wanted

    made.add_argument("--peers", type=chosen, default=list(names), help=f"all, or of {','.join(names)}")
    return made


def numbers(text: str) -> list[int]:
    """`1,16` -> [1, 16]."""
    return [int(part) for part in text.split(",")]
