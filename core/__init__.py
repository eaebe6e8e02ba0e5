"""The platform, without HTTP."""

import os
import sys
from typing import Any

# NumPy's products are of small matrices, made by many threads at once: threads of its own would only be in their
# way. It reads this when it is first imported, which is after this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _load_structlog() -> None:
    """Load structlog without rich, which it takes where it finds it: a quarter of the start of an engine host.

    It would show the values of all variables in the traces that it prints; ours are plain (`core.logs`).
    """
    modules: dict[str, Any] = sys.modules
    if "rich" not in modules:
        modules["rich"] = None  # as if it were not installed
        try:
            import structlog  # noqa: F401
        finally:
            del modules["rich"]


_load_structlog()
