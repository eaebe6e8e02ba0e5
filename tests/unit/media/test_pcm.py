from __future__ import annotations

import numpy as np
import pytest

from core.errors import InvalidInput
from core.media.pcm import PcmReader


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def read(reader: PcmReader, data: bytes, size: int = 1001) -> np.ndarray:
    """In pieces that end within samples."""
    return np.concatenate([*(reader.feed(piece) for piece in pieces(data, size)), reader.finish()])


def test_samples_are_the_same_however_they_are_cut() -> None:
    values = np.random.default_rng(1).integers(-32_768, 32_767, 5000).astype("<i2")
    expected = values.astype(np.float32) / 32_768
    for size in (1, 2, 3, 1001, 100_000):
        assert np.array_equal(read(PcmReader({}), values.tobytes(), size), expected)
    floats = (values / 32_768).astype("<f4")
    assert np.array_equal(read(PcmReader({"encoding": "f32le"}), floats.tobytes()), floats)


def test_channels_are_averaged_and_any_rate_becomes_16_khz() -> None:
    time = np.arange(48_000) / 48_000
    tone = (10_000 * np.sin(2 * np.pi * 440 * time)).astype("<i2")
    stereo = np.stack([tone, np.zeros_like(tone)], axis=1)
    samples = read(PcmReader({"rate": 48_000, "channels": 2}), stereo.tobytes(), 999)
    assert abs(len(samples) - 16_000) <= 1
    expected = 5_000 / 32_768 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(samples[800:15_200] - expected[800:15_200]).max() < 0.001


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"encoding": "mp3"}, "encoding is s16le or f32le"),
        ({"encoding": ["s16le"]}, "encoding"),
        ({"rate": 0}, "rate must be a whole number, 4000 to 192000"),
        ({"rate": "16000"}, "rate"),
        ({"channels": 9}, "channels must be a whole number, 1 to 8"),
        ({"channels": True}, "channels"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        PcmReader(parameters)


def test_half_a_sample_at_the_end_and_what_is_no_number_are_refused() -> None:
    with pytest.raises(InvalidInput, match="within a sample"):
        read(PcmReader({}), bytes(1001))
    with pytest.raises(InvalidInput, match="not numbers"):
        PcmReader({"encoding": "f32le"}).feed(np.array([np.nan], "<f4").tobytes())
