"""The last moment of a process: what cannot hold it up any more."""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

PATIENCE_S = 5.0


def end_soon(code: int = 0) -> None:
    """End the process by force if it is still there in a moment, everything having been closed in order.

    uvloop waits in its own `close` for handles of child processes that are long reaped, and now and then for ever.
    """
    timer = threading.Timer(PATIENCE_S, os._exit, (code,))
    timer.daemon = True
    timer.start()


def end_now(code: int = 0) -> NoReturn:
    """End the process, everything having been closed in order, without taking the interpreter down first.

    An engine's thread that comes back from a run meanwhile would find no interpreter, and the C++ library around
    it would abort the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
