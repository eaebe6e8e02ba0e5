"""A package's own tokenizer: the `tokenizer.json` of the tokenizers library, by that library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import EngineUnavailable, InvalidPackage

HINT = "pip install 'pulvinar[text]'"
_MAX_BYTES = 64 << 20


class Tokenizer:
    """Reads the file; raises InvalidPackage where there is none, and EngineUnavailable without the library."""

    def __init__(self, root: Path, name: str) -> None:
        path = _inside(root, name)
        # Its threads would take the cores of the engines; texts of several requests are split by several threads.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import tokenizers
        except ImportError as error:
            raise EngineUnavailable(
                f"Text tasks need the library tokenizers, which is not installed here: {HINT}."
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise InvalidPackage(f"The tokenizer {name!r} cannot be read; it must be a tokenizer.json.") from error
        truncation: Any = self._tokenizer.truncation
        self.own_limit: int | None = truncation["max_length"] if truncation else None
        """How many tokens its maker had it keep; None where it says nothing."""
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.largest_id = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        self.pad_id = self._pad_id()
        self.special = self._tokenizer.num_special_tokens_to_add(False)
        """How many of a text's tokens are no part of it, such as [CLS]."""

    def split(self, texts: Sequence[str]) -> list[Any]:
        """Each text as an Encoding: `ids`, `type_ids`, `attention_mask`, `offsets`, `word_ids`, whole."""
        return list(self._tokenizer.encode_batch(list(texts), add_special_tokens=True))

    def _pad_id(self) -> int:
        for token in ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>"):
            found = self._tokenizer.token_to_id(token)
            if found is not None:
                return int(found)
        return 0


def _inside(root: Path, name: str) -> Path:
    if "\0" in name or not (path := (root / name).resolve()).is_relative_to(root.resolve()):
        raise InvalidPackage(f"The tokenizer {name!r} must lie in the model's package.")
    try:
        size = path.stat().st_size
    except OSError:
        raise InvalidPackage(
            f"The tokenizer {name!r} is not in the model's package; upload a zip that holds it."
        ) from None
    if size > _MAX_BYTES:
        raise InvalidPackage(f"The tokenizer {name!r} is larger than {_MAX_BYTES >> 20} MiB.")
    return path
