"""Ends with 0 where the server in this container answers, for the container's health check."""

from __future__ import annotations

import os
import sys
from urllib.request import urlopen

port = os.environ.get("PULVINAR_SERVER__PORT", "8000")
try:
    with urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2):
        pass
except OSError as error:
    sys.exit(f"The server does not answer: {error}")
