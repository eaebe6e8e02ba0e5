from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from core.errors import EngineUnavailable, InvalidInput, TooLarge, UnsupportedMedia
from core.media import audio, headers

CODINGS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
LOSSY = {"PCM_U8": 0.02, "ULAW": 0.05, "VORBIS": 0.05, "OPUS": 0.1, "MPEG_LAYER_III": 0.05}


def tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, rate: int, format: str = "WAV", coding: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(out, "w", rate, channels, format=format, subtype=coding) as file:
        step = 4096 if format == "OGG" else 1 << 20  # Vorbis's encoder takes no large blocks
        for start in range(0, len(samples), step):
            file.write(samples[start : start + step])
    return out.getvalue()


def decode(data: bytes, max_seconds: float = 600, max_bytes: int = 512 << 20) -> np.ndarray:
    samples = audio.decode(data, max_seconds=max_seconds, max_bytes=max_bytes)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    return samples


def wav(*, data: bytes, rate: int = 16_000, channels: int = 1, size: int | None = None, kind: int = 1) -> bytes:
    """A WAV file with a header of our own, `size` being what it says of its data."""
    size = len(data) if size is None else size
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
    head = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(len(head) + size, 0xFFFFFFFF)) + head + data


@pytest.mark.parametrize(("format", "coding"), CODINGS)
def test_every_format_is_decoded_as_libsndfile_decodes_it_in_one_piece(format: str, coding: str) -> None:
    data = encode(tone(16_000, 20), 16_000, format, coding)
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")

    samples = decode(data)

    assert samples.shape == whole.shape
    assert np.abs(samples - whole).max() < 1e-6
    middle = slice(16_000, 32_000)
    assert np.abs(samples[middle] - tone(16_000, 20)[middle]).max() < LOSSY.get(coding, 0.001) or coding == "OPUS"
    info = audio.probe(data)
    assert (info.rate, info.channels) == (16_000, 1)
    assert info.seconds == pytest.approx(20, abs=0.2)
    assert info.format == headers.audio_format(data)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channels_become_16_khz_mono(rate: int, channels: int) -> None:
    samples = decode(encode(np.stack([tone(rate, 2)] * channels, axis=1), rate))

    assert abs(len(samples) - 32_000) <= 1
    inner = slice(1_600, 30_400)  # away from the ends, where the filter has too little to look at
    assert np.abs(samples[inner] - tone(16_000, 2)[inner]).max() < 0.01


def test_channels_are_averaged() -> None:
    left, right = tone(16_000, 1, 440), tone(16_000, 1, 880)
    samples = decode(encode(np.stack([left, right], axis=1), 16_000, "WAV", "FLOAT"))
    assert np.allclose(samples, (left + right) / 2, atol=1e-6)


def test_what_lies_above_half_the_rate_is_filtered_out_and_not_folded_down() -> None:
    assert np.abs(decode(encode(tone(48_000, 2, 15_000), 48_000))[1_600:-1_600]).max() < 0.001


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_too_long_by_its_header_is_refused(format: str) -> None:
    coding = dict(CODINGS)[format] if format != "WAV" else "PCM_16"
    data = encode(tone(16_000, 11), 16_000, format, coding)
    with pytest.raises(TooLarge, match=r"11\.\d seconds long; at most 10 "):
        decode(data, max_seconds=10)


def test_an_hour_is_refused_by_the_default_before_it_is_decoded() -> None:
    with pytest.raises(TooLarge, match=r"3,600\.0 seconds long; at most 600 "):
        decode(wav(data=bytes(3600 * 1_000 * 2), rate=1_000))


def test_bytes_at_the_recordings_own_rate_are_counted() -> None:
    data = encode(np.zeros((192_000, 8), np.float32), 192_000, "FLAC")
    assert len(decode(data, max_bytes=192_000 * 8 * 4)) == 16_000
    with pytest.raises(TooLarge, match=r"unpacks to 6,144,000 bytes \(8 channels of 192,000 samples a second\)"):
        decode(data, max_bytes=192_000 * 8 * 4 - 1)


def flac_of_unknown_length(seconds: int) -> bytes:
    """As an encoder writes it to a pipe: the 36 bits of its length are 0 (RFC 9639, section 8.2)."""
    data = bytearray(encode(np.zeros(seconds * 16_000, np.float32), 16_000, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_a_header_that_leaves_the_length_open_is_counted_while_it_is_decoded() -> None:
    data = flac_of_unknown_length(300)
    assert audio.probe(data).seconds is None
    assert len(decode(data)) == 300 * 16_000
    with pytest.raises(TooLarge, match="at most 60 "):
        decode(data, max_seconds=60)


def test_flac_that_promises_less_than_it_holds_unpacks_to_no_more_than_allowed() -> None:
    data = bytearray(encode(tone(16_000, 20), 16_000, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = struct.pack(">I", 16_000)
    assert len(decode(bytes(data), max_seconds=2)) <= 2 * 16_000


def test_flac_that_promises_more_than_it_holds_is_cut_off() -> None:
    data = encode(np.random.default_rng(0).normal(size=160_000).astype(np.float32) / 10, 16_000, "FLAC")
    with pytest.raises(InvalidInput, match="cut off"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 40_000_000])
def test_a_wav_header_that_promises_more_than_there_is_gives_what_there_is(size: int) -> None:
    """So do programs that write to a pipe."""
    assert len(decode(wav(data=bytes(32_000), size=size))) == 16_000


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (wav(data=b""), "no samples"),
        (wav(data=bytes(100), rate=0), "damaged|samples a second"),
        (wav(data=bytes(100), rate=0xFFFFFFFF), "damaged|samples a second"),
        (wav(data=bytes(100), rate=1), "says 1 samples a second"),
        (wav(data=bytes(100), channels=0), "damaged"),
        (wav(data=bytes(100), channels=65_535), "damaged|no samples"),
        (b"RIFF\x00\x00\x00\x00WAVE" + bytes(100), "damaged"),
        (b"fLaC" + bytes(100), "damaged"),
        (b"OggS" + bytes(100), "damaged"),
        (b"ID3" + bytes(200), "damaged|no samples"),
    ],
)
def test_damaged_and_empty_ones_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        decode(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_must_be_numbers(value: float) -> None:
    samples = tone(16_000, 1)
    samples[100] = value
    with pytest.raises(InvalidInput, match="not numbers"):
        decode(encode(samples, 16_000, "WAV", "FLOAT"))


def test_floats_of_the_wrong_scale_are_told() -> None:
    with pytest.raises(InvalidInput, match=r"reach 16,38\d; .* run from -1 to 1"):
        decode(encode(tone(16_000, 1) * 32_767, 16_000, "WAV", "FLOAT"))


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"", "an empty body"),
        (b"hello, this is no recording", "text"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "JPEG"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(20), "WebP"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(20), "an MP4 video"),
        (b"FORM\x00\x00\x00\x00AIFF" + bytes(20), "data of an unknown kind"),
    ],
)
def test_what_is_no_recording_is_named(data: bytes, seen: str) -> None:
    with pytest.raises(UnsupportedMedia, match=seen):
        decode(data)


def test_rare_codings_are_refused_before_their_decoder_runs() -> None:
    with pytest.raises(UnsupportedMedia, match="WAV in the coding MS_ADPCM is not taken"):
        decode(encode(tone(16_000, 1), 16_000, "WAV", "MS_ADPCM"))


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_cut_off_or_changed_bytes_give_samples_or_a_clear_error(format: str) -> None:
    coding = dict(CODINGS)[format] if format != "WAV" else "PCM_16"
    data = encode(tone(16_000, 2), 16_000, format, coding)
    random = np.random.default_rng(7)
    for _ in range(60):
        changed = bytearray(data[: int(random.integers(20, len(data)))])
        for place in random.integers(12, len(changed), 4):
            changed[place] = int(random.integers(0, 256))
        with contextlib.suppress(InvalidInput, TooLarge, UnsupportedMedia):
            assert len(decode(bytes(changed), max_seconds=10)) <= 10 * 16_000 + 1


def test_without_the_libraries_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['soxr'] = None\n"
        "from core.media import audio\n"
        "try: audio.require()\n"
        "except Exception as error: print(type(error).__name__, error.message)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{EngineUnavailable.__name__} Recordings need the library soxr: {audio.HINT}."
