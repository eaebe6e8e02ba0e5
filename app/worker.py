"""One of several HTTP workers: takes its settings and its listening socket from the control process."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson

_PR_SET_PDEATHSIG = 1
KILL_MARGIN_S = 5.0


def main() -> None:
    """Read the job from standard input, then serve until SIGTERM or until the control process is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    gc.set_threshold(50_000, 20, 100)  # as run.py does it
    job: dict[str, Any] = orjson.loads(sys.stdin.buffer.readline())
    from app.ending import end_now
    from app.lifespan import Place
    from app.server import Server, server_config, stop_s
    from app.tls import make_context
    from core.access.limits import Share
    from core.logs import set_up_logs
    from core.settings import Settings

    settings = Settings.model_validate(job["settings"]).came_from(job["origins"])
    set_up_logs(settings.log, prod=settings.server.prod)
    watch = threading.Thread(target=_end_with_control, args=[settings.server.drain_s], daemon=True)
    watch.start()
    place = Place(job["name"], Path(job["control"]), Share(**job["limits"]))
    server = Server(server_config(settings, place, context=make_context(settings.tls)), stop_s(settings))
    server.run(sockets=[socket.socket(fileno=job["fd"])])
    end_now(0 if server.started else 1)


def _end_with_control(drain_s: float) -> None:
    """Stop once the control process is gone, which alone holds the other end; by force if that does not help."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain_s + KILL_MARGIN_S)
    os._exit(1)
