"""Reading OpenVINO's IR without running it. Source: docs.openvino.ai, "Intermediate Representation"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError, XMLParser  # nosec B405  # document types are refused

from core.errors import InvalidPackage
from core.store.paths import shown

_MAX_BYTES: Final = 256 << 20
_CHUNK_BYTES: Final = 1 << 20
_OPSET: Final = re.compile(r"opset\d{1,3}|ie_internal_opset|type_relaxed_opset")
_DECLARED: Final = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class IrGraph:
    """The layers of a graph."""

    version: str
    layers: list[Element]


def parse(path: Path) -> IrGraph:
    """The file as a graph. Raises InvalidPackage; entities, with which XML grows without end, are refused."""
    content = _content(path)
    if b"\x00" in content[:64] or _DECLARED.search(content):
        raise InvalidPackage(
            "The IR declares entities or is not UTF-8, as OpenVINO never writes it; save it again."
        )
    parser = XMLParser()  # noqa: S314  # nosec B314  # nothing that could grow is left in it
    try:
        for place in range(0, len(content), _CHUNK_BYTES):
            parser.feed(content[place : place + _CHUNK_BYTES])
        root = parser.close()
    except (ParseError, LookupError, ValueError) as error:
        raise InvalidPackage(
            "The IR is no whole XML: it is cut short or damaged; save or copy it again."
        ) from error
    layers = root.findall("./layers/layer")
    if root.tag != "net" or not layers:
        raise InvalidPackage("The XML is no OpenVINO IR: it has no layers; save the model again.")
    return IrGraph(str(root.get("version", ""))[:8], layers)


def check_weights(graph: IrGraph, weights: Path) -> int:
    """Check that every constant lies in the file of weights, and count them. Raises InvalidPackage."""
    if not weights.is_file():
        raise InvalidPackage(f"The package lacks {shown(weights.name)}, the IR's weights; put it beside the .xml.")
    size_bytes = weights.stat().st_size
    constants = [layer for layer in _all_layers(graph) if layer.get("type") == "Const"]
    for layer in constants:
        data = layer.find("data")
        ends = sum(_whole(data.get(key, "") if data is not None else "", layer) for key in ("offset", "size"))
        if ends > size_bytes:
            raise InvalidPackage(
                f"The IR's constant {shown(layer.get('name', ''))} reads past the end of the weights: {ends} of "
                f"{size_bytes} bytes; the .bin is cut short or belongs to another .xml."
            )
    return len(constants)


def check_layers(graph: IrGraph) -> None:
    """Raise InvalidPackage for layers of extensions, whose libraries are not loaded."""
    foreign = sorted({str(layer.get("type")) for layer in _all_layers(graph) if not _is_known(layer)})
    if foreign:
        named = ", ".join(shown(name) for name in foreign[:20])
        raise InvalidPackage(
            f"The IR uses layers that are not OpenVINO's own: {named}; extensions are not loaded."
        )


def _content(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise InvalidPackage(f"The IR's .xml is larger than {_MAX_BYTES} bytes; its weights belong into the .bin.")
    return path.read_bytes()


def _all_layers(graph: IrGraph) -> list[Element]:
    """The layers with those of loops' bodies."""
    return [inner for layer in graph.layers for inner in layer.iter("layer")]


def _is_known(layer: Element) -> bool:
    return _OPSET.fullmatch(layer.get("version", "")) is not None


def _whole(text: str, layer: Element) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise InvalidPackage(f"The IR's constant {shown(layer.get('name', ''))} does not say where its data lies.")
    return int(text)
