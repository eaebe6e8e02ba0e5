"""Log-mel spectrograms as Whisper was trained on (Radford et al. 2022, section 2.2, and its published code).

Windows of 25 ms (Hann) every 10 ms, power, triangular filters on Slaney's mel scale of equal area, log10; what
lies 8 below the loudest is raised to that, and all is mapped to about -1 to 1.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

from core.media.audio import SAMPLE_RATE, Samples

WINDOW: Final = 400
HOP: Final = 160
FRAMES_PER_SECOND: Final = SAMPLE_RATE // HOP
_CHUNK_FRAMES: Final = 3000
_RANGE: Final = 8.0
_FLOOR: Final = 1e-10

Spectrogram = np.ndarray[Any, np.dtype[np.float32]]


def log_mel(samples: Samples, mels: int) -> Spectrogram:
    """float32 [mels, frames] of 16 kHz samples, `len(samples) // 160 + 1` frames: one of silence at the end."""
    frames = len(samples) // HOP + 1
    padded = np.pad(np.pad(samples, (0, HOP)), WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
    hann, filters = _hann(), _filters(mels)
    spectrogram = np.empty((mels, frames), np.float32)
    for start in range(0, frames, _CHUNK_FRAMES):
        # In chunks: the windows of an hour would take 25 times the recording's memory.
        chunk = slice(start, start + _CHUNK_FRAMES)
        power = np.abs(np.fft.rfft(windows[chunk] * hann, axis=1).astype(np.complex64)) ** 2
        spectrogram[:, chunk] = filters @ power.T
    np.log10(np.maximum(spectrogram, _FLOOR, out=spectrogram), out=spectrogram)
    np.maximum(spectrogram, spectrogram.max() - _RANGE, out=spectrogram)
    spectrogram += 4.0
    spectrogram /= 4.0
    return spectrogram


@cache
def _hann() -> Spectrogram:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def _filters(mels: int) -> Spectrogram:
    """[mels, 201]: triangles between neighbours that are evenly spaced in mel from 0 to 8 kHz."""
    edges = _hertz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), mels + 2))
    bins = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    areas: Spectrogram = (triangles * 2.0 / (high - low)).astype(np.float32)
    return areas


# Slaney's Auditory Toolbox (1998): linear to 1 kHz, 200/3 Hz a mel, then 27 steps for each factor of 6.4.
_LINEAR_HZ: Final = 200.0 / 3
_KNEE_HZ: Final = 1000.0
_KNEE: Final = _KNEE_HZ / _LINEAR_HZ
_STEP: Final = float(np.log(6.4) / 27.0)


def _mel(hertz: float) -> float:
    return hertz / _LINEAR_HZ if hertz < _KNEE_HZ else _KNEE + float(np.log(hertz / _KNEE_HZ)) / _STEP


def _hertz(mel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where(mel < _KNEE, mel * _LINEAR_HZ, _KNEE_HZ * np.exp(_STEP * (mel - _KNEE)))
