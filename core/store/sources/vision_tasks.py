"""Which image task a hub's configuration tells of, and how that task reads the model's outputs.

The names are those of the transformers library: the classes that end in `For…`, and the outputs of their exports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Config = Mapping[str, Any]

CLASSIFICATION: Final = "image-classification"
_DETECTION: Final = "object-detection"
_SEGMENTATION: Final = "semantic-segmentation"
_BY_ENDING: Final = {
    "ForImageClassification": CLASSIFICATION,
    "ForObjectDetection": _DETECTION,
    "ForSemanticSegmentation": _SEGMENTATION,
}
_SAID_AS: Final = {"image-segmentation": _SEGMENTATION}
"""What hubs call a task by another name."""
_SIGMOID: Final = frozenset(
    {"rt_detr", "rt_detr_v2", "d_fine", "deformable_detr", "conditional_detr", "dab-detr", "deta"}
)
_SOFTMAX: Final = frozenset({"detr", "table-transformer", "yolos"})
"""Of these the last class is that there is nothing."""


def task_of(config: Config, said: str | None) -> str | None:
    """The image task of a model, None where it is of none or `said` is of another."""
    found = _found(config)
    wanted = _SAID_AS.get(said or "", said)
    if wanted == CLASSIFICATION and found is None:
        return CLASSIFICATION
    if found == _DETECTION and config.get("model_type") not in _SIGMOID | _SOFTMAX:
        return None  # their outputs are not known
    return found if wanted in (None, found) else None


def postprocess_of(task: str, config: Config) -> dict[str, Any]:
    """How the task reads the outputs, where that is not its habit."""
    if task == CLASSIFICATION:
        several = config.get("problem_type") == "multi_label_classification"
        return {"activation": "sigmoid"} if several else {}
    if task == _DETECTION:
        outputs = {"boxes": "pred_boxes", "scores": "logits"}
        how = {"outputs": outputs, "box_format": "cxcywh", "box_unit": "fraction"}
        if config.get("model_type") in _SIGMOID:
            return {**how, "activation": "sigmoid"}
        return {**how, "activation": "softmax", "background": "last"}
    return {}


def seen_whole(task: str, preprocess: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing for a task that answers with places: nothing is cut off, the size is the crop's."""
    resize = preprocess.get("resize", {})
    if task == CLASSIFICATION or resize.get("mode") != "center_crop":
        return preprocess
    kept = {name: value for name, value in resize.items() if name != "crop_fraction"}
    return {**preprocess, "resize": {**kept, "mode": "stretch"}}


def _found(config: Config) -> str | None:
    if config.get("pretrained_cfg") and config.get("num_classes"):  # timm's, which names no architecture like that
        return CLASSIFICATION
    names = config.get("architectures")
    for name in names if isinstance(names, list) else []:
        for ending, task in _BY_ENDING.items():
            if str(name).endswith(ending):
                return task
    return None
