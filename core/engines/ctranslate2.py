"""Whisper in CTranslate2's form: a folder with `model.bin`, `config.json` and `vocabulary.txt` (or `.json`).

One run is one window of 30 s: log-mel features and a prompt in, tokens out. What makes text of a recording, window
by window, is the task `speech-recognition`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.engines.cores import cores_available
from core.engines.extras import choice, refuse_unknown
from core.engines.heap import trim_heap
from core.engines.inputs import ordered
from core.engines.sentences import sentence
from core.errors import EngineUnavailable, LoadFailed, PlatformError, RunFailed
from core.signature import Signature, TensorSpec

MAX_TOKENS: Final = 448
"""What Whisper's decoder has positions for, prompt and answer together (Radford et al. 2022, appendix F)."""
FRAMES: Final = 3000
FIRST_TIMESTAMP_MOST: Final = 50
"""No window's first segment begins later than so many steps of 0.02 s, as in OpenAI's decoding."""

_HINT: Final = "pip install 'pulvinar[audio]'"
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_START: Final = "<|startoftranscript|>"
_MAX_BEAMS: Final = 10
_BEST_OF: Final = 5
# Our words for the library's types. `stored` computes as the file is, or in what the device has instead: fp32 for
# a file of fp16 on a processor, which takes five times as long as int8; so there `auto` is int8, else `stored`.
_TYPES: Final = {
    "auto": "default",
    "stored": "default",
    "fp32": "float32",
    "int8": "int8",
    "bf16": "bfloat16",
    "fp16": "float16",
}
_PRECISIONS: Final = ("fp32", "int8", "bf16", "fp16")
_NOISE: Final = re.compile(r"(?!)")

Row = tuple[int, ...]


class Ctranslate2Engine(Engine):
    """One Whisper model; `extra` takes `precision`.

    Inputs: `features` FP32 [n, mels, 3000]; `prompt` INT64 [n, length], which holds the start token, or where it
    holds none, asks for the language alone; `temperature` FP32 [n, 1], 0 for a beam search; `beam_size` INT64
    [n, 1], 1 to 10. Outputs: `tokens` INT64 [n, 448], -1 behind the last; `log_probability` FP32 [n, 1], the
    mean of a token's (of the language's where that was asked for); `no_speech` FP32 [n, 1], a probability.
    """

    name: ClassVar[str] = "ctranslate2"
    formats: ClassVar[tuple[str, ...]] = ("ctranslate2",)
    # The library lets one batch run at a time on one set of threads: more slots would only queue inside it.
    concurrent: ClassVar[bool] = False
    # It checks little of what it is given; what crashes it must not take the server along.
    always_hosted: ClassVar[bool] = True

    def __init__(self) -> None:
        self._model: Any = None
        self._library: Any = None
        self._signature = Signature((), ())
        self._start = -1
        self._tokens = 0
        self._languages: dict[str, int] = {}
        self._memory_bytes = 0

    @classmethod
    def info(cls) -> EngineInfo:
        """Available when it is installed; not imported for that."""
        try:
            found = version("ctranslate2")
        except PackageNotFoundError:
            return EngineInfo(cls.name, available=False, reason="CTranslate2 is not installed.", hint=_HINT)
        cuda = ("cuda:0",) if _DRIVER.exists() else ()
        return EngineInfo(
            cls.name, available=True, version=found, devices=("cpu", *cuda), precisions=("fp32", "int8")
        )

    @classmethod
    def choices(cls, device: str) -> Mapping[str, Sequence[str]]:
        """What the library computes in well on such a device."""
        known = _library().get_supported_compute_types(device.partition(":")[0])
        return {"precision": tuple(ours for ours in _PRECISIONS if _TYPES[ours] in known)}

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Load the folder of `artifact`, its `model.bin`. Raises LoadFailed or EngineUnavailable."""
        refuse_unknown(options.extra, ("precision",))
        precision = choice(options.extra, "precision", tuple(_TYPES))
        self._library = library = _library()
        device, index = _device(library, options.device)
        self._start, self._tokens, self._languages = _places(artifact.parent)
        try:
            self._model = model = library.models.Whisper(
                str(artifact.parent),
                device=device,
                device_index=index,
                compute_type="int8" if (precision, device) == ("auto", "cpu") else _TYPES[precision],
                inter_threads=1,
                intra_threads=(options.widths[0] if options.widths else options.threads) or cores_available(),
            )
            mels = int(model.n_mels)
        except Exception as error:
            raise LoadFailed(f"CTranslate2 cannot load the model: {sentence(error, _NOISE, artifact)}") from error
        self._signature = _signature(mels)
        self._memory_bytes = artifact.stat().st_size
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """One batch; rows that ask for the same are decoded together. Nothing is cast. Raises RunFailed."""
        model = self._model  # kept until the run has ended, whoever closes meanwhile
        if model is None:
            raise RunFailed("The model is not loaded.")
        features, prompts, temperatures, beams = ordered(inputs, self._signature)
        rows = len(features)
        if not rows == len(prompts) == len(temperatures) == len(beams):
            raise RunFailed("The inputs must have as many rows as each other.")
        self._check(prompts)
        outputs = _empty(rows)
        groups: defaultdict[tuple[int, int, float], list[int]] = defaultdict(list)
        for row in range(rows):
            start = _place(prompts[row], self._start)
            groups[start, int(beams[row, 0]), float(temperatures[row, 0])].append(row)
        for (start, beam, temperature), places in groups.items():
            part = np.ascontiguousarray(features[places])
            if start < 0:
                self._detect(model, part, places, outputs)
            else:
                self._generate(model, part, prompts[places].tolist(), beam, temperature, places, outputs)
        return outputs

    def shrink(self, inputs: Tensors) -> None:
        """See Engine. What loading has freed goes to the system."""
        trim_heap()

    def memory(self) -> int:
        """The model file's size; 0 once closed."""
        return self._memory_bytes

    def close(self) -> None:
        """Drop the model."""
        self._model = None
        self._memory_bytes = 0
        trim_heap()

    def _check(self, prompts: np.ndarray[Any, Any]) -> None:
        """The library looks neither at tokens nor at lengths, and crashes on wrong ones."""
        if prompts.size and not 0 <= prompts.min() <= prompts.max() < self._tokens:
            raise RunFailed(f"The prompt must hold tokens of 0 to {self._tokens - 1}.")
        if prompts.shape[1] >= MAX_TOKENS:
            raise RunFailed(f"The prompt must have fewer than {MAX_TOKENS} tokens.")

    def _generate(
        self,
        model: Any,
        features: np.ndarray[Any, Any],
        prompts: list[list[int]],
        beam: int,
        temperature: float,
        places: Sequence[int],
        outputs: dict[str, np.ndarray[Any, Any]],
    ) -> None:
        how = {"beam_size": max(1, min(beam, _MAX_BEAMS))}
        if temperature > 0:
            how = {"beam_size": 1, "num_hypotheses": _BEST_OF, "sampling_topk": 0}
        results = self._call(
            model.generate,
            features,
            prompts,
            max_length=MAX_TOKENS,
            return_scores=True,
            return_no_speech_prob=True,
            max_initial_timestamp_index=FIRST_TIMESTAMP_MOST,
            sampling_temperature=temperature or 1.0,
            **how,
        )
        for place, result in zip(places, results, strict=True):
            tokens = result.sequences_ids[0][:MAX_TOKENS]
            outputs["tokens"][place, : len(tokens)] = tokens
            # The score is the sum over the length; the mean counts the end token as well.
            outputs["log_probability"][place] = result.scores[0] * len(tokens) / (len(tokens) + 1)
            outputs["no_speech"][place] = result.no_speech_prob

    def _detect(
        self,
        model: Any,
        features: np.ndarray[Any, Any],
        places: Sequence[int],
        outputs: dict[str, np.ndarray[Any, Any]],
    ) -> None:
        if not model.is_multilingual:
            self._call(model.encode, features)
            return
        for place, ranked in zip(places, self._call(model.detect_language, features), strict=True):
            token, probability = ranked[0]
            outputs["tokens"][place, 0] = self._languages[token]
            outputs["log_probability"][place] = np.log(max(probability, 1e-10))

    def _call(self, method: Any, features: np.ndarray[Any, Any], *args: Any, **how: Any) -> Any:
        try:
            return method(self._library.StorageView.from_array(features), *args, **how)
        except PlatformError:
            raise
        except Exception as error:
            raise RunFailed(f"CTranslate2 failed on this batch: {sentence(error, _NOISE)}") from error


def read_vocabulary(folder: Path) -> list[str]:
    """The tokens in their order: one a line of `vocabulary.txt`, or the list in `vocabulary.json`.

    Raises LoadFailed.
    """
    text, listed = folder / "vocabulary.txt", folder / "vocabulary.json"
    try:
        if text.is_file():
            # A token may be empty: Whisper's multilingual vocabulary has one.
            return text.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        tokens = json.loads(listed.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoadFailed("The package lacks vocabulary.txt (or .json); put it beside model.bin.") from None
    except (OSError, ValueError) as error:
        raise LoadFailed("The vocabulary cannot be read: it is no UTF-8 text, or no JSON.") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise LoadFailed("vocabulary.json must be a list of tokens.")
    return tokens


def _places(folder: Path) -> tuple[int, int, dict[str, int]]:
    """The start token's place, how many tokens there are, and the languages' places. Raises LoadFailed.

    The words themselves are some megabytes of small objects, which have gone before the model comes.
    """
    vocabulary = read_vocabulary(folder)
    if _START not in vocabulary:
        raise LoadFailed(f"The vocabulary has no {_START}: this is no Whisper model's.")
    languages = {token: place for place, token in enumerate(vocabulary) if _is_language(token)}
    return vocabulary.index(_START), len(vocabulary), languages


def _signature(mels: int) -> Signature:
    inputs = (
        TensorSpec("features", "FP32", (-1, mels, FRAMES)),
        TensorSpec("prompt", "INT64", (-1, -1)),
        TensorSpec("temperature", "FP32", (-1, 1)),
        TensorSpec("beam_size", "INT64", (-1, 1)),
    )
    outputs = (
        TensorSpec("tokens", "INT64", (-1, MAX_TOKENS)),
        TensorSpec("log_probability", "FP32", (-1, 1)),
        TensorSpec("no_speech", "FP32", (-1, 1)),
    )
    return Signature(inputs, outputs)


def _empty(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "tokens": np.full((rows, MAX_TOKENS), -1, np.int64),
        "log_probability": np.zeros((rows, 1), np.float32),
        "no_speech": np.zeros((rows, 1), np.float32),
    }


def _place(prompt: np.ndarray[Any, Any], start: int) -> int:
    found = np.flatnonzero(prompt == start)
    return int(found[0]) if len(found) else -1


def _is_language(token: str) -> bool:
    return re.fullmatch(r"<\|[a-z]{2,3}\|>", token) is not None


def _device(library: ModuleType, device: str) -> tuple[str, int]:
    kind, _, index = device.partition(":")
    if device == "cpu":
        return "cpu", 0
    if kind != "cuda" or not (index or "0").isdecimal():
        raise EngineUnavailable(f"The engine ctranslate2 has no device {device!r}: it runs on cpu and cuda:N.")
    if int(index or 0) >= library.get_cuda_device_count():
        raise EngineUnavailable(
            f"CTranslate2 sees no device {device}: it needs an NVIDIA driver and that many GPUs."
        )
    return "cuda", int(index or 0)


def _library() -> ModuleType:
    try:
        library = import_module("ctranslate2")
    except Exception as error:
        raise EngineUnavailable(f"CTranslate2 is not installed: {_HINT}.") from error
    library.set_log_level(logging.ERROR)  # a model kept in fp16 that computes in fp32 is no news
    return library
