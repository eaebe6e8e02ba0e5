"""The program of the server that a measurement starts: `serve`, which ends with its parent."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve as the arguments say."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    from run import main as run

    run()
