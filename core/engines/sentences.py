"""What a library said about a failure, as one sentence that may be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_SLASHED: Final = re.compile(r"(?<![\w.])/([\w.-]+)/[^\s'\",)\]]*")
_LONGEST: Final = 300


def sentence(error: Exception, noise: re.Pattern[str], artifact: Path | None = None) -> str:
    """On one line of at most 300 characters, without what matches `noise`, and without our paths."""
    text = str(error) or type(error).__name__
    if artifact is not None:
        for place in (artifact, artifact.resolve()):
            text = text.replace(str(place), "the model file").replace(str(place.parent), "its folder")
    text = _SLASHED.sub(_without_path, noise.sub("", text))
    text = " ".join(text.split())[:_LONGEST].rstrip(" .")
    return f"{text}."


def _without_path(match: re.Match[str]) -> str:
    # Graph nodes are called /conv1/Conv and help the reader; what begins at a real root folder is a path.
    return "a file" if os.path.isdir(f"/{match[1]}") else match[0]
