from __future__ import annotations

import pytest

from core.errors import Unprocessable
from core.tasks.image_classification import ImageClassification
from core.tasks.registry import task_class, task_names
from core.tasks.tensor import TensorTask


def test_names_and_classes() -> None:
    assert task_names()[0] == "tensor"
    assert task_class("tensor") is TensorTask
    assert task_class("image-classification") is ImageClassification
    assert all(task_class(name).name == name for name in task_names())


def test_an_unknown_task_is_answered_with_the_known() -> None:
    with pytest.raises(Unprocessable, match="tensor, image-classification"):
        task_class("detection")
