"""TorchScript modules: what their code may call, and how they are called.

PyTorch reads the pickles inside with an unpickler of its own, in C++, which knows tensors, plain values and
classes of the archive's own code, and imports nothing. The code is a small language without Python's functions;
but some of its operators open files and sockets, and methods run while a module is loaded: so it is read before.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from core.engines.torch_archive import TorchArchive
from core.engines.torch_tensors import check_dtypes
from core.errors import LoadFailed
from core.signature import Signature, TensorSpec

FORBIDDEN: Final = (
    "from_file",  # maps any file into a tensor
    "save",  # writes any file
    "load_tensor",  # reads any file
    "debugprims",
    "c10d",  # sockets
    "_c10d_functional",
    "_c10d_functional_autograd",
    "symm_mem",
    "inductor",  # tensors beyond the end of their memory
    "static_runtime",
    r"_sparse_\w*_unsafe",  # indices that nobody has checked
    r"_nested_view_from_\w+",
)
"""Words that a module's code may not hold, as patterns; `torch._C._jit_get_all_schemas()` lists all operators."""
_WORD: Final = re.compile(rf"(?<!\w)(?:{'|'.join(FORBIDDEN)})(?!\w)")
# A name put together at run time would escape the words above; PyTorch itself writes getattr(self, "0") only.
_GETATTR: Final = re.compile(r"(?<!\w)getattr(?!\w)")
_PLAIN_GETATTR: Final = re.compile(r"(?<!\w)getattr\([\w.]+, \"[^\"\\]*\"\)")
_CLASSES: Final = re.compile(r"torch\s*\.\s*classes\s*[.\n]\s*(\w+)")
_KNOWN_CLASSES: Final = frozenset({"quantized", "rnn", "sparse", "mkldnn", "xnnpack"})
_FILE_KINDS: Final = ("aten::from_file", "aten::save", "debugprims::load_tensor")


def check_code(archive: TorchArchive) -> int:
    """Read all code of a module and return how many files it has. Raises LoadFailed with what is not accepted."""
    names = [name for name in archive.names() if name.startswith("code/") and not name.endswith(".debug_pkl")]
    for name in names:
        text = archive.text(name)
        _check_words(text)
        _check_classes(text)
    for name in archive.names():
        if name.endswith(".pkl"):
            _check_classes(archive.read(name).decode("latin-1"))
    return len(names)


def open_module(
    library: ModuleType, path: Path, device: str, inputs: Any, outputs: Any
) -> tuple[Signature, Callable[[Sequence[Any]], Sequence[Any]]]:
    """A module's signature, as told, and a call of it. Raises LoadFailed, and what PyTorch raises."""
    signature = _told_signature(inputs, outputs)
    with TorchArchive(path) as archive:
        check_code(archive)
    with warnings.catch_warnings():
        # TorchScript is deprecated as a whole; that is the exporter's concern and not news to whoever serves it.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        module = library.jit.load(str(path), map_location=device)
    module.eval()
    _check_graph(module)
    places = _argument_order(module, signature)
    names = [spec.name for spec in signature.outputs]

    def call(tensors: Sequence[Any]) -> Sequence[Any]:
        return _flat(module(**dict(zip(places, tensors, strict=True))), names)

    return signature, call


def _check_words(text: str) -> None:
    if found := _WORD.search(text):
        raise LoadFailed(
            f"The model's TorchScript holds the word {found[0]!r}: operators that reach files, sockets or other "
            "memory are not accepted. Export the model without it, and rename what is only called so."
        )
    if len(_GETATTR.findall(text)) != len(_PLAIN_GETATTR.findall(text)):
        raise LoadFailed(
            "The model's TorchScript uses getattr in a way that PyTorch does not write; export it again."
        )


def _check_classes(text: str) -> None:
    for name in _CLASSES.findall(text):
        if name not in _KNOWN_CLASSES:
            raise LoadFailed(
                f"The model uses native classes of torch.classes.{name[:40]}, which are not accepted."
            )


def _check_graph(module: Any) -> None:
    """The same again where PyTorch has understood the code."""
    graph = module.inlined_graph
    if any(graph.findAllNodes(kind, recurse=True) for kind in _FILE_KINDS):
        raise LoadFailed("The model reads or writes files, which is not accepted; export it without that.")


def _told_signature(inputs: Any, outputs: Any) -> Signature:
    if not inputs or not outputs:
        raise LoadFailed(
            "A TorchScript file does not say the dtypes and shapes of its tensors: list `inputs` and `outputs` in "
            "model.yaml, such as `inputs: [{name: x, dtype: FP32, shape: [-1, 3]}]`."
        )
    signature = Signature(*(tuple(TensorSpec.from_json(spec) for spec in specs) for specs in (inputs, outputs)))
    check_dtypes(signature)
    return signature


def _argument_order(module: Any, signature: Signature) -> list[str]:
    """The inputs' names, each an argument of `forward`. Raises LoadFailed when they are not those it takes."""
    arguments = {argument.name: argument for argument in module.forward.schema.arguments[1:]}
    names = [spec.name for spec in signature.inputs]
    missing = [
        name for name, argument in arguments.items() if name not in names and not argument.has_default_value()
    ]
    unknown = [name for name in names if name not in arguments]
    if missing or unknown:
        raise LoadFailed(
            f"model.yaml lists the inputs {', '.join(names)[:200]}, but the model's forward takes "
            f"{', '.join(arguments)[:200] or 'none'}; name them alike."
        )
    return names


def _flat(value: Any, names: Sequence[str]) -> Sequence[Any]:
    """What forward returned, in the order of the outputs: a tensor, a tuple or list, or a dictionary by name."""
    if isinstance(value, Mapping):
        return [value.get(name) for name in names]
    return value if isinstance(value, list | tuple) else (value,)
