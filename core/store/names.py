from __future__ import annotations

import re

from core.errors import BadRequest

_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


def check_model_name(name: str) -> str:
    """Give `name` back when it may name a model. Raises BadRequest with the rule."""
    if not _MODEL_NAME.fullmatch(name) or ".." in name:
        raise BadRequest(
            "A model's name has 1 to 63 characters: lower-case letters a-z, digits, '.', '_' and '-', the first "
            "a letter or a digit, and no '..'."
        )
    return name
