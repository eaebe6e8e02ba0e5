"""What is looked at in a model file before an engine gets it, for each format. Used in the validator only.

Nothing here runs anything of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.engines.tensorrt_plans import is_plan
from core.engines.torch_archive import TorchArchive
from core.engines.torch_export import check_program
from core.engines.torch_script import check_code
from core.errors import InvalidPackage
from core.validation import ctranslate2_file, ir_file


class ModelFile(ABC):
    """One model file. Each check returns what it found, as a sentence, or raises what is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @abstractmethod
    def parse(self) -> str:
        """The whole file is of its format."""

    def external_data(self) -> str:
        """What the model keeps in other files lies in the package."""
        return "All data is in the model."

    @abstractmethod
    def operators(self) -> str:
        """The engine can know every operator, and none reaches out of the model."""

    def structure(self) -> str:
        """The graph keeps its format's rules."""
        return "The engine checks the graph as it loads it."


class OnnxFile(ModelFile):
    """ONNX, with external data."""

    _model: Any = None

    def parse(self) -> str:
        """See ModelFile."""
        from core.validation import onnx_file

        self._model = model = onnx_file.parse(self._path)
        opset = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
        return f"ONNX of IR version {model.ir_version}, opset {opset}, {len(model.graph.node)} nodes."

    def external_data(self) -> str:
        """See ModelFile."""
        from core.validation.external_data import check_external_data

        count = check_external_data(self._model, self._path.parent)
        if not count:
            return super().external_data()
        return f"{count} tensors keep their data in files of the package."

    def operators(self) -> str:
        """See ModelFile."""
        from core.validation import onnx_file

        unknown = onnx_file.unsupported_operators(self._model)
        self._model = None  # parsed twice is enough: the engine reads the file itself
        if unknown:
            raise InvalidPackage(
                f"The model uses operators that the engine does not have: {', '.join(unknown[:20])}; export it "
                "with standard ONNX operators. Custom operator libraries are not loaded."
            )
        return "Every operator belongs to the engine."

    def structure(self) -> str:
        """See ModelFile."""
        from core.validation import onnx_file

        onnx_file.check_structure(self._path)
        return "The graph is well-formed."


class ScriptFile(ModelFile):
    """TorchScript: an archive with code of its own small language."""

    def parse(self) -> str:
        """See ModelFile."""
        with TorchArchive(self._path) as archive:
            return f"A TorchScript archive of {len(archive.names())} records."

    def operators(self) -> str:
        """See ModelFile."""
        with TorchArchive(self._path) as archive:
            count = check_code(archive)
        return f"None of its {count} files of code reaches files, sockets or foreign memory."


class ProgramFile(ModelFile):
    """An exported program (`.pt2`)."""

    def parse(self) -> str:
        """See ModelFile."""
        with TorchArchive(self._path) as archive:
            return f"An exported program of {len(archive.names())} records."

    def operators(self) -> str:
        """See ModelFile."""
        with TorchArchive(self._path) as archive:
            count = check_program(archive)
        return f"All {count} operators are ATen's own, and no weight is a pickle."


class IrFile(ModelFile):
    """OpenVINO's IR: XML for the graph, and a file of weights beside it."""

    def parse(self) -> str:
        """See ModelFile."""
        self._graph = ir_file.parse(self._path)
        return f"OpenVINO IR of version {self._graph.version}, {len(self._graph.layers)} layers."

    def external_data(self) -> str:
        """See ModelFile."""
        count = ir_file.check_weights(self._graph, self._path.with_suffix(".bin"))
        return f"{count} constants lie in the file of weights."

    def operators(self) -> str:
        """See ModelFile."""
        ir_file.check_layers(self._graph)
        return "Every layer belongs to OpenVINO's operation sets."


class Ctranslate2File(ModelFile):
    """Whisper's weights in CTranslate2's form, with their vocabulary and settings beside."""

    def parse(self) -> str:
        """See ModelFile."""
        self._variables = ctranslate2_file.parse(self._path)
        return f"A CTranslate2 model of {len(self._variables.shapes)} variables."

    def external_data(self) -> str:
        """See ModelFile."""
        count = ctranslate2_file.check_companions(self._variables, self._path.parent)
        return f"config.json and {count} tokens lie in the package."

    def operators(self) -> str:
        """See ModelFile."""
        return "The file holds weights alone; what is computed with them is the engine's."


class PlanFile(ModelFile):
    """A TensorRT plan: compiled code, of which nothing can be known before it runs."""

    def parse(self) -> str:
        """See ModelFile."""
        if not is_plan(self._path):
            raise InvalidPackage("The file is no TensorRT plan.")
        return "A TensorRT plan."

    def operators(self) -> str:
        """See ModelFile."""
        return "A plan is code, and is not looked into: the administrator trusts plans (engines.trust_plans)."


FILES: Final[Mapping[str, type[ModelFile]]] = {
    "onnx": OnnxFile,
    "openvino": IrFile,
    "torchscript": ScriptFile,
    "pt2": ProgramFile,
    "ctranslate2": Ctranslate2File,
    "tensorrt": PlanFile,
}
