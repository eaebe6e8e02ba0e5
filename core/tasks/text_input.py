"""What every text task does first: texts become tokens, and tokens one batch padded to its longest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from core.errors import InvalidInput, InvalidPackage, PlatformError, RunFailed
from core.media import text
from core.signature import NUMPY_DTYPES, Signature, TensorSpec
from core.tasks.base import Padding, Payload, Prepared, Tensors
from core.tasks.config import TaskConfig
from core.tasks.tokenizer import Tokenizer

_KNOWN: Final = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
_USUAL_LIMIT: Final = 512
EXAMPLE: Final = "The quick brown fox jumps over the lazy dog."

Run = Callable[[Tensors], Tensors]


class TextConfig(TaskConfig):
    """How texts become tokens; `tokenizer` is a file of the package."""

    tokenizer: str = Field("tokenizer.json", min_length=1, max_length=500)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    too_long: Literal["truncate", "refuse"] = "truncate"
    unicode: text.Form = "NFC"
    whitespace: text.Whitespace = "collapse"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text on its way back: the text as it was sent, as the model got it, and its tokens.

    `encoding` is whole; of its tokens the model got the places in `kept`.
    """

    sent: str
    cleaned: text.Cleaned
    encoding: Any
    kept: Sequence[int]

    @property
    def count(self) -> int:
        """How many the model got."""
        return len(self.kept)

    def to_json(self) -> dict[str, Any]:
        """What every answer says of its text."""
        return {"tokens": self.count, "truncated": self.count < len(self.encoding.ids)}


class TextInput:
    """The preprocessing of one model, bound to its inputs. Raises InvalidPackage where they do not fit."""

    def __init__(self, config: TextConfig, signature: Signature, root: Path, max_bytes: int) -> None:
        self._config = config
        self._specs = _checked(signature)
        self._fixed = _fixed_length(self._specs)
        self._max_bytes = max_bytes
        self._tokenizer = Tokenizer(root, config.tokenizer)
        self.max_tokens = self._limit()
        self._padding = {
            spec.name: Padding(self._tokenizer.pad_id if spec.name == "input_ids" else 0) for spec in self._specs
        }

    def prepare(self, payloads: Sequence[Payload]) -> Prepared:
        """Integer arrays [items, tokens] under the model's names, and a Tokens for each text.

        Raises UnsupportedMedia, TooLarge or InvalidInput, naming the text where there are several.
        """
        if not payloads:
            raise InvalidInput("The request holds no text.")
        texts = _each(payloads, self._read)
        encodings = self._tokenizer.split([cleaned.text for _, cleaned in texts])
        pairs = list(zip(texts, encodings, strict=True))
        tokens = _each(pairs, self._tokens)
        inputs = self._arrays(tokens)
        if self._fixed is not None:
            return Prepared(inputs, list(tokens))
        return Prepared(inputs, list(tokens), [one.count for one in tokens], self._padding)

    def probe(self, run: Run) -> None:
        """Run the largest id and the longest text there may be, in validation.

        Raises InvalidPackage where the model takes them not: the tokenizer is another model's, or `max_tokens`
        too large.
        """
        largest = self._tokenizer.largest_id
        if largest < 0:
            raise InvalidPackage("The tokenizer has no tokens.")
        _try(
            run,
            self._made_up(largest, min(4, self.max_tokens)),
            (
                f"The tokenizer does not fit the model: it has tokens up to {largest}, and the model fewer; "
                "put the model's own tokenizer into the package."
            ),
        )
        _try(
            run,
            self._made_up(0, self.max_tokens),
            (f"The model does not take {self.max_tokens} tokens; set preprocess.max_tokens to what it takes."),
        )

    def _read(self, payload: Payload) -> tuple[str, text.Cleaned]:
        sent = text.read(payload.data, payload.media_type, max_bytes=self._max_bytes)
        return sent, text.clean(sent, self._config.unicode, self._config.whitespace)

    def _tokens(self, pair: tuple[tuple[str, text.Cleaned], Any]) -> Tokens:
        (sent, cleaned), encoding = pair
        return Tokens(sent, cleaned, encoding, self._kept(encoding))

    def _kept(self, encoding: Any) -> Sequence[int]:
        """The places of the tokens that the model gets: of too many, the first, and those that end a text."""
        count, most = len(encoding.ids), self.max_tokens
        if count <= most:
            return range(count)
        if self._config.too_long == "refuse":
            raise InvalidInput(f"The text has {count} tokens, and the model takes {most}; send less at once.")
        closing = 0
        while closing < count and encoding.special_tokens_mask[count - 1 - closing]:
            closing += 1
        closing = min(closing, most)
        return [*range(most - closing), *range(count - closing, count)]

    def _arrays(self, tokens: Sequence[Tokens]) -> dict[str, np.ndarray[Any, Any]]:
        width = self._fixed or max(one.count for one in tokens)
        arrays = {}
        for spec in self._specs:
            array = np.full((len(tokens), width), self._padding[spec.name].value, NUMPY_DTYPES[spec.dtype])
            for row, one in zip(array, tokens, strict=True):
                row[: one.count] = _values(one, _KNOWN[spec.name])
            arrays[spec.name] = array
        return arrays

    def _made_up(self, token: int, length: int) -> Tensors:
        width = self._fixed or length
        batch = max(1, self._specs[0].shape[0])
        fill = {"input_ids": token, "attention_mask": 1, "token_type_ids": 0}
        return {
            spec.name: np.full((batch, width), fill[spec.name], NUMPY_DTYPES[spec.dtype]) for spec in self._specs
        }

    def _limit(self) -> int:
        own = self._tokenizer.own_limit
        most = self._config.max_tokens or own or _USUAL_LIMIT
        most = min(most, self._fixed) if self._fixed is not None else most
        if most <= self._tokenizer.special:
            raise InvalidPackage(
                f"With {most} tokens nothing of a text is left: the tokenizer adds {self._tokenizer.special}."
            )
        return most


def _values(one: Tokens, what: str) -> list[int]:
    values: list[int] = getattr(one.encoding, what)
    return values if one.count == len(values) else [values[place] for place in one.kept]


def _each(items: Sequence[Any], make: Callable[[Any], Any]) -> list[Any]:
    """What `make` makes of each; an error names the text where there are several."""
    made = []
    for place, item in enumerate(items):
        try:
            made.append(make(item))
        except PlatformError as error:
            if len(items) == 1:
                raise
            raise type(error)(f"Text {place + 1} of {len(items)}: {error.message}") from error
    return made


def _try(run: Run, inputs: Tensors, complaint: str) -> None:
    try:
        run(inputs)
    except RunFailed as error:
        raise InvalidPackage(complaint) from error


def _checked(signature: Signature) -> tuple[TensorSpec, ...]:
    """The inputs, each one that a tokenizer makes. Raises InvalidPackage."""
    names = [spec.name for spec in signature.inputs]
    if "input_ids" not in names:
        raise InvalidPackage(f"A text model takes input_ids; this one takes {', '.join(names)[:200]}.")
    for spec in signature.inputs:
        if spec.name not in _KNOWN:
            raise InvalidPackage(
                f"The model's input {spec.name[:80]} is none that a tokenizer makes ({', '.join(_KNOWN)}); export "
                "the model without it."
            )
        if spec.dtype not in ("INT64", "INT32") or len(spec.shape) != 2:
            raise InvalidPackage(
                f"The input {spec.name} is {spec.dtype} {list(spec.shape)}; it must be INT64 [batch, tokens]."
            )
    return signature.inputs


def _fixed_length(specs: Sequence[TensorSpec]) -> int | None:
    lengths = {spec.shape[1] for spec in specs} - {-1}
    if len(lengths) > 1:
        raise InvalidPackage(f"The model's inputs are of different length: {sorted(lengths)}.")
    return lengths.pop() if lengths else None
