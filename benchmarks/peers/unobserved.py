"""Pulvinar without metrics, statistics and history, to measure what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def _uncounted(*_: object, **__: object) -> None:
    return None


def _no_history(platform: Any) -> Coroutine[Any, Any, None]:
    from app.observation import read
    from app.recorder import Recorder

    platform.recorder = Recorder(platform.database, lambda: read(platform))
    return _for_ever()


async def _for_ever() -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    import app.external.express
    import app.external.inference
    import app.lifespan

    app.external.inference.note_answer = _uncounted
    app.external.express.note_answer = _uncounted
    app.lifespan.keep_history = _no_history
    from run import main

    main()
