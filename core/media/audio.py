"""Recordings to samples: WAV, FLAC, Ogg (Vorbis, Opus) and MP3, told apart by content alone, as 16 kHz mono.

libsndfile decodes and soxr resamples (the extra `audio`). What a header promises is held against the caps before
anything is decoded; blocks are counted while they are, so that a header that lies unpacks to no more.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import numpy as np

from core.errors import EngineUnavailable, InvalidInput, TooLarge, UnsupportedMedia
from core.media import headers

Samples = np.ndarray[Any, np.dtype[np.float32]]

SAMPLE_RATE: Final = 16_000
HINT: Final = "pip install 'pulvinar[audio]'"
_BLOCK_BYTES: Final = 1 << 20
_FLOAT_BYTES: Final = 4
_RATES: Final = (1_000, 768_000)
# Rare codings of WAV have been libsndfile's weak places; these are what recorders and converters write.
_CODINGS: Final = {
    "WAV": {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"},
    "FLAC": {"PCM_S8", "PCM_16", "PCM_24"},
    "Ogg": {"VORBIS", "OPUS"},
    "MP3": {"MPEG_LAYER_III"},
}
# Encoders that write to a pipe leave the length open: libsndfile then says "as many as there can be".
_UNKNOWN_FRAMES: Final = 1 << 62
_LOUDEST: Final = 10.0


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a header says: format, sampling rate in Hz, channels, and seconds (None: the length is left open)."""

    format: str
    rate: int
    channels: int
    seconds: float | None


def require() -> None:
    """Raises EngineUnavailable, with what to install, where a library is missing."""
    for name in ("soundfile", "soxr"):
        _library(name)


def probe(data: bytes) -> AudioInfo:
    """Read the header alone. Raises UnsupportedMedia (no recording) or InvalidInput (damaged)."""
    format = _format(data)
    with _open(data, format) as file:
        return _info(file, format)


def decode(data: bytes, *, max_seconds: float, max_bytes: int) -> Samples:
    """All of a recording, float32 [samples] at 16 kHz, its channels averaged; full scale is -1 to 1.

    `max_bytes` bounds what it unpacks to at its own rate, 4 bytes a sample and channel. Raises UnsupportedMedia
    (no recording, or a coding that is not taken), TooLarge (over a cap), InvalidInput (damaged, empty, or no
    numbers) or EngineUnavailable.
    """
    format = _format(data)
    with _open(data, format) as file:
        info = _info(file, format)
        _check_length(info, info.seconds or 0.0, max_seconds, max_bytes)
        blocks = list(_resampled(_blocks(file, info, max_seconds, max_bytes), info.rate))
    samples = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    if not len(samples):
        raise InvalidInput(f"The {format} recording holds no samples.")
    _check_numbers(samples, format)
    return samples


def _format(data: bytes) -> str:
    format = headers.audio_format(data)
    if format is None:
        seen = headers.describe(data)
        raise UnsupportedMedia(f"This is {seen}, not a recording that is taken: send WAV, FLAC, Ogg or MP3.")
    return format


def _open(data: bytes, format: str) -> Any:
    library = _library("soundfile")
    try:
        file = _forward_only()(io.BytesIO(data))
    except (library.LibsndfileError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"The {format} recording has a damaged header or is cut off.") from error
    if file.subtype not in _CODINGS[format]:
        file.close()
        raise UnsupportedMedia(f"{format} in the coding {file.subtype} is not taken: send PCM, FLAC, Ogg or MP3.")
    return file


@cache
def _forward_only() -> Any:
    """SoundFile that reads from front to back: after each block it would seek to where it is.

    That breaks the bit reservoir of MP3 at each block, and fails at the end of FLAC whose length is left open.
    """
    return type("ForwardOnly", (_library("soundfile").SoundFile,), {"seekable": lambda self: False})


def _info(file: Any, format: str) -> AudioInfo:
    rate, channels = int(file.samplerate), int(file.channels)
    if not _RATES[0] <= rate <= _RATES[1] or channels < 1:
        raise InvalidInput(
            f"The {format} recording says {rate:,} samples a second; {_RATES[0]:,} to {_RATES[1]:,} are taken."
        )
    frames = int(file.frames)
    return AudioInfo(format, rate, channels, None if frames >= _UNKNOWN_FRAMES else frames / rate)


def _check_length(info: AudioInfo, seconds: float, max_seconds: float, max_bytes: int) -> None:
    if seconds > max_seconds:
        raise TooLarge(
            f"The {info.format} recording is {seconds:,.1f} seconds long; at most {max_seconds:,g} are accepted."
        )
    unpacked = int(seconds * info.rate) * info.channels * _FLOAT_BYTES
    if unpacked > max_bytes:
        raise TooLarge(
            f"The {info.format} recording unpacks to {unpacked:,} bytes ({info.channels} channels of "
            f"{info.rate:,} samples a second); at most {max_bytes:,} are accepted."
        )


def _blocks(file: Any, info: AudioInfo, max_seconds: float, max_bytes: int) -> Iterator[Samples]:
    """Mono blocks at the recording's own rate, counted against the caps as they come."""
    frames = max(1, _BLOCK_BYTES // (_FLOAT_BYTES * info.channels))
    read = 0
    while len(block := _read(file, frames, info.format)):
        read += len(block)
        _check_length(info, read / info.rate, max_seconds, max_bytes)
        yield block[:, 0] if info.channels == 1 else block.mean(axis=1, dtype=np.float32)
    # Other formats' lengths are estimates, or what is there; a FLAC header that promises more was cut off.
    if info.format == "FLAC" and info.seconds is not None and read < round(info.seconds * info.rate):
        raise InvalidInput("The FLAC recording is cut off: it holds fewer samples than its header says.")


def _read(file: Any, frames: int, format: str) -> Samples:
    try:
        block: Samples = file.read(frames, dtype="float32", always_2d=True)
    except (_library("soundfile").LibsndfileError, RuntimeError, ValueError) as error:
        raise InvalidInput(f"The {format} recording is cut off or damaged.") from error
    return block


def _resampled(blocks: Iterator[Samples], rate: int) -> Iterator[Samples]:
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = resampler(rate)
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def resampler(rate: int) -> Any:
    """soxr's stream from `rate` to 16 kHz, mono float32: `resample_chunk(samples, last)` piece by piece."""
    return _library("soxr").ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")


def _check_numbers(samples: Samples, format: str) -> None:
    loudest = float(max(samples.max(), -samples.min()))
    if not np.isfinite(loudest):
        raise InvalidInput(f"The {format} recording holds samples that are not numbers.")
    if loudest > _LOUDEST:
        raise InvalidInput(
            f"The {format} recording's samples reach {loudest:,.0f}; floats are taken to run from -1 to 1."
        )


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: the wheel without its shared library
        raise EngineUnavailable(f"Recordings need the library {name}: {HINT}.") from error
