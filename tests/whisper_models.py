"""Small Whisper models in CTranslate2's form, whose answers are known: each says which mel is loudest.

The convolutions carry the first mels to channels of their own, the encoder's norm makes the loudest stand out, the
decoder's one layer looks at all frames alike, and the embedding of token k is channel k. Positions from `END_AT`
on bring the end.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

MELS, FRAMES = 80, 3000
SAYABLE = 8
"""Mels that can be loudest: the tokens 0 to 7."""
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|nospeech|>", "<|notimestamps|>")
VOCABULARY = (*(f"mel-{number}" for number in range(SAYABLE)), *SPECIAL)
END, START, _, NO_TIMES = range(SAYABLE, len(VOCABULARY))
END_AT = 8
_DEPTH = 16
_LOUD = 30.0


def loudest(folder: Path, inner: int = _DEPTH) -> Path:
    """Write one with so many hidden units in the decoder, of 128 bytes each, and return its `model.bin`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ctranslate2.specs import WhisperSpec

    spec = WhisperSpec(1, 1, 1, 1)
    spec.register_vocabulary(list(VOCABULARY))
    spec.config.suppress_ids = spec.config.suppress_ids_begin = spec.config.lang_ids = []
    spec.config.alignment_heads = [(0, 0)]
    _fill_encoder(spec.encoder)
    _fill_decoder(spec.decoder, inner)
    spec.validate()
    spec.save(str(folder))
    return folder / "model.bin"


def heard(numbers: list[int]) -> np.ndarray[Any, Any]:
    """Features in which these mels are loudest, [n, 80, 3000]."""
    features = np.zeros((len(numbers), MELS, FRAMES), np.float32)
    for row, number in zip(features, numbers, strict=True):
        row[number] = 1
    return features


def _fill_encoder(encoder: Any) -> None:
    encoder.conv1.weight = _middle_tap(MELS)
    encoder.conv2.weight = _middle_tap(_DEPTH)
    encoder.conv1.bias = encoder.conv2.bias = _zeros(_DEPTH)
    encoder.position_encodings.encodings = _zeros(FRAMES // 2, _DEPTH)
    _fill_norm(encoder.layer_norm)
    (layer,) = encoder.layer
    _fill_norm(layer.self_attention.layer_norm)
    _fill_linears(layer.self_attention.linear, _zeros(3 * _DEPTH, _DEPTH), _zeros(_DEPTH, _DEPTH))
    _fill_hidden(layer.ffn, _DEPTH)


def _fill_decoder(decoder: Any, inner: int) -> None:
    decoder.embeddings.weight = decoder.projection.weight = _eye(len(VOCABULARY), _DEPTH)
    positions = _zeros(448, _DEPTH)
    positions[END_AT - 1 :, END] = 100 * _LOUD
    decoder.position_encodings.encodings = positions
    _fill_norm(decoder.layer_norm)
    (layer,) = decoder.layer
    _fill_norm(layer.self_attention.layer_norm)
    _fill_linears(layer.self_attention.linear, _zeros(3 * _DEPTH, _DEPTH), _zeros(_DEPTH, _DEPTH))
    _fill_norm(layer.attention.layer_norm)
    both = np.concatenate([_zeros(_DEPTH, _DEPTH), _eye(_DEPTH, _DEPTH)])
    _fill_linears(layer.attention.linear, _zeros(_DEPTH, _DEPTH), both, _LOUD * _eye(_DEPTH, _DEPTH))
    _fill_hidden(layer.ffn, inner)


def _fill_linears(linears: list[Any], *weights: np.ndarray[Any, Any]) -> None:
    for linear, weight in zip(linears, weights, strict=True):
        linear.weight, linear.bias = weight, _zeros(len(weight))


def _fill_hidden(hidden: Any, inner: int) -> None:
    """It adds nothing, whatever is hidden: what leads out is zero, and what leads in is not, lest it be packed."""
    _fill_norm(hidden.layer_norm)
    noise = np.random.default_rng(0).random((inner, _DEPTH), np.float32)
    _fill_linears([hidden.linear_0, hidden.linear_1], noise, _zeros(_DEPTH, inner))


def _fill_norm(norm: Any) -> None:
    norm.gamma, norm.beta = np.ones(_DEPTH, np.float32), _zeros(_DEPTH)


def _middle_tap(channels: int) -> np.ndarray[Any, Any]:
    weight = _zeros(_DEPTH, channels, 3)
    weight[:, :, 1] = 10 * _eye(_DEPTH, channels)
    return weight


def _eye(rows: int, columns: int) -> np.ndarray[Any, Any]:
    return np.eye(rows, columns, dtype=np.float32)


def _zeros(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)
