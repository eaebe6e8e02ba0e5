"""Raw samples that come in pieces, to 16 kHz mono: what a stream of audio is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from core.errors import InvalidInput
from core.media import audio
from core.media.audio import SAMPLE_RATE, Samples

# NumPy's dtype of each encoding, all little-endian, and what full scale is in it.
_ENCODINGS: Final = {"s16le": ("<i2", 32_768.0), "f32le": ("<f4", 1.0)}
_RATES: Final = (4_000, 192_000)
_MAX_CHANNELS: Final = 8


class PcmReader:
    """`parameters` may hold `encoding` (`s16le` or `f32le`), `rate` in Hz and `channels`. Raises InvalidInput."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        encoding = parameters.get("encoding", "s16le")
        if not isinstance(encoding, str) or encoding not in _ENCODINGS:
            raise InvalidInput(f"The parameter encoding is {' or '.join(_ENCODINGS)}.")
        self._dtype, self._scale = np.dtype(_ENCODINGS[encoding][0]), _ENCODINGS[encoding][1]
        rate = _whole(parameters, "rate", SAMPLE_RATE, *_RATES)
        self._channels = _whole(parameters, "channels", 1, 1, _MAX_CHANNELS)
        self._rest = b""
        self._resampler = audio.resampler(rate) if rate != SAMPLE_RATE else None

    def feed(self, chunk: bytes) -> Samples:
        """The samples that are complete, float32 [samples]. Raises InvalidInput for what is no number."""
        data = self._rest + chunk
        whole = len(data) - len(data) % (self._dtype.itemsize * self._channels)
        self._rest = data[whole:]
        values = np.frombuffer(data, self._dtype, whole // self._dtype.itemsize).astype(np.float32)
        if not np.isfinite(values).all():
            raise InvalidInput("The audio holds samples that are not numbers.")
        mono = values.reshape(-1, self._channels).mean(axis=1, dtype=np.float32) / np.float32(self._scale)
        return self._resampled(mono, last=False)

    def finish(self) -> Samples:
        """What the resampler still holds. Raises InvalidInput where the last sample is incomplete."""
        if self._rest:
            raise InvalidInput("The audio ends within a sample: its length fits neither encoding nor channels.")
        return self._resampled(np.empty(0, np.float32), last=True)

    def _resampled(self, samples: Samples, *, last: bool) -> Samples:
        if self._resampler is None:
            return samples
        resampled: Samples = self._resampler.resample_chunk(np.ascontiguousarray(samples), last=last)
        return resampled


def _whole(parameters: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = parameters.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise InvalidInput(f"The parameter {name} must be a whole number, {least} to {most}.")
    return value
