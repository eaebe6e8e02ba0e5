"""A manifest out of the JSON files that model hubs keep beside a model.

Their fields are those of the transformers library's configurations and image processors, and of timm's
`pretrained_cfg`. A pixel of 0 to 255 becomes `(pixel * rescale_factor - image_mean) / image_std`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.store.sources.text_configs import text_fields, text_task
from core.store.sources.vision_tasks import postprocess_of, seen_whole, task_of

FILES: Final = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
)

Config = Mapping[str, Any]

# As Pillow numbers its filters.
_FILTERS: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_WHOLE_IMAGE_FROM: Final = 384
"""From this size on, ConvNeXt's processor does not crop."""


def manifest_of(
    config: Config,
    processor: Config,
    tokenizer: Config,
    task: str | None = None,
    *,
    pooling: Config | None = None,
    sentence: Config | None = None,
) -> dict[str, Any]:
    """What the files say, as a manifest's fields; of a model that no task here fits, a description alone.

    `task` is what the source itself says, or the caller; `pooling` and `sentence` are what sentence-transformers
    keeps. Fields that cannot be read are left out.
    """
    manifest: dict[str, Any] = {}
    if description := _description(config, tokenizer):
        manifest["description"] = description
    text = text_task(config, tokenizer, pooling or {}, task)
    if text is not None:
        manifest["task"] = text
        manifest |= text_fields(text, config, tokenizer, pooling or {}, sentence or {})
        if text != "text-embedding" and (labels := _labels(config)):
            manifest["labels"] = labels
        return manifest
    found = task_of(config, task)
    if found is None:
        return manifest
    manifest["task"] = found
    timm = _mapping(config.get("pretrained_cfg"))
    preprocess = _of_timm(timm) if timm and not processor.get("image_mean") else _of_processor(processor)
    if preprocess:
        manifest["preprocess"] = seen_whole(found, preprocess)
    if labels := _labels(config):
        manifest["labels"] = labels
    if postprocess := postprocess_of(found, config):
        manifest["postprocess"] = postprocess
    return manifest


def _description(config: Config, tokenizer: Config) -> str:
    kind = config.get("model_type") or config.get("architecture")
    parts = [str(kind)[:100]] if isinstance(kind, str) else []
    model = _mapping(tokenizer.get("model"))
    if model:
        parts.append(f"a {str(model.get('type', 'text'))[:40]} tokenizer of {_count(model.get('vocab'))} tokens")
    longest = config.get("max_position_embeddings")
    if model and isinstance(longest, int):
        parts.append(f"texts of at most {longest} tokens")
    return ", ".join(parts)


def _count(vocab: Any) -> int:
    return len(vocab) if isinstance(vocab, list | dict) else 0


def _labels(config: Config) -> list[str] | None:
    """`id2label` or timm's `label_names`, in the order of the outputs; None where they are missing or made up."""
    names = config.get("label_names")
    by_index = _mapping(config.get("id2label"))
    if not isinstance(names, list):
        names = [by_index.get(str(index)) for index in range(len(by_index))]
    if not names or not all(isinstance(name, str) and 0 < len(name) <= 500 for name in names):
        return None
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def _of_timm(config: Config) -> dict[str, Any]:
    resize: dict[str, Any] = {"mode": "center_crop"}
    size = config.get("input_size")
    if isinstance(size, list) and len(size) == 3:
        resize["size"] = size[1:]
    fraction = config.get("crop_pct", 0.875)
    if config.get("crop_mode") == "squash":
        resize["mode"] = "stretch"
    elif _is_fraction(fraction):
        resize["crop_fraction"] = fraction
    if config.get("interpolation") in _FILTERS.values():
        resize["interpolation"] = config["interpolation"]
    return {"resize": resize, "scale": 1 / 255, **_normalisation(config.get("mean"), config.get("std"))}


def _of_processor(config: Config) -> dict[str, Any]:
    if not config:
        return {}
    preprocess: dict[str, Any] = {"resize": _resize(config), "scale": _scale(config)}
    if config.get("do_normalize", True):
        preprocess.update(_normalisation(config.get("image_mean"), config.get("image_std")))
    if config.get("do_flip_channel_order"):
        preprocess["color"] = "BGR"
    return preprocess


def _resize(config: Config) -> dict[str, Any]:
    resize: dict[str, Any] = {"mode": "stretch"}
    if config.get("resample") in _FILTERS:
        resize["interpolation"] = _FILTERS[config["resample"]]
    shortest, sides = _sides(config)
    crop = _pair(config.get("crop_size")) if config.get("do_center_crop") else None
    if crop is not None:
        before = shortest or (min(sides) if sides else min(crop))
        if str(config.get("image_processor_type") or config.get("feature_extractor_type")).startswith("Levit"):
            before = before * 256 // 224
        return {**resize, "mode": "center_crop", "size": crop, "crop_fraction": min(1.0, min(crop) / before)}
    fraction = config.get("crop_pct")
    if shortest is not None and _is_fraction(fraction) and shortest < _WHOLE_IMAGE_FROM:
        return {**resize, "mode": "center_crop", "size": [shortest] * 2, "crop_fraction": fraction}
    found = sides or ([shortest] * 2 if shortest else None)
    return {**resize, "size": found} if found else resize


def _sides(config: Config) -> tuple[int | None, list[int] | None]:
    """The shortest edge, or height and width, that an image is brought to."""
    size = config.get("size")
    shortest = _mapping(size).get("shortest_edge")
    if isinstance(size, int) and (config.get("do_center_crop") or config.get("crop_pct")):
        shortest = size
    if isinstance(shortest, int) and shortest > 0:
        return shortest, None
    return None, _pair(size)


def _pair(size: Any) -> list[int] | None:
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    pair = [size, size] if isinstance(size, int) else size
    good = isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, int) and one > 0 for one in pair)
    return pair if good else None


def _scale(config: Config) -> float:
    if not config.get("do_rescale", True):
        return 1.0
    factor = config.get("rescale_factor", 1 / 255)
    return float(factor) if isinstance(factor, int | float) else 1 / 255


def _normalisation(mean: Any, std: Any) -> dict[str, Any]:
    return {name: value for name, value in (("mean", mean), ("std", std)) if _is_of_channels(value)}


def _is_of_channels(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(one, int | float) for one in value)


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value <= 1


def _mapping(value: Any) -> Config:
    return value if isinstance(value, Mapping) else {}
