"""The built-in operations by name; `map` and `switch` are the graph's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from core.pipelines.image_operations import Crop, Resize
from core.pipelines.operation import Operation
from core.pipelines.value_operations import Concat, Constant, Join, Merge, Select, Text, Threshold, TopK

OPERATIONS: Final[Mapping[str, Operation]] = {
    "concat": Concat(),
    "constant": Constant(),
    "crop": Crop(),
    "join": Join(),
    "merge": Merge(),
    "resize": Resize(),
    "select": Select(),
    "text": Text(),
    "threshold": Threshold(),
    "top-k": TopK(),
}
OPERATION_NAMES: Final = (*OPERATIONS, "map", "switch")
