"""A drawing of a definition as SVG: nodes in columns by their distance from the inputs, bodies as boxes within."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from core.pipelines.definition import BodySpec, Definition, Edge, NodeSpec
from core.pipelines.layers import GAP_Y, HEAD, LINE, PAD, Box, Drawing, Place, lay_out

_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#1f2933}.small{font-size:10px;fill:#52606d}"
    ".model{fill:#dbeafe;stroke:#2563eb}.op{fill:#f5f7fa;stroke:#7b8794}.io{fill:#dcfce7;stroke:#16a34a}"
    ".body{fill:#fffbea;stroke:#b7791f;stroke-dasharray:4 3}.edge{fill:none;stroke:#7b8794;stroke-width:1.3}"
    ".port{paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}"
)


def draw(definition: Definition, title: str) -> str:
    """The SVG document. Names come out escaped; no script, no link, no font of elsewhere."""
    drawing = _whole(definition)
    lay_out(drawing)
    parts = [f'<g transform="translate({PAD:g} {PAD + HEAD:g})">', *_render(drawing), "</g>"]
    width, height = drawing.width + 2 * PAD, drawing.height + 2 * PAD + HEAD
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#7b8794"/></marker></defs>'
        f'<rect width="100%" height="100%" fill="#fff"/><text x="{PAD:g}" y="{PAD + 8:g}">{escape(title)}</text>'
        + "".join(parts)
        + "</svg>\n"
    )


def _whole(definition: Definition) -> Drawing:
    # A name may be both an input's and an output's: what is drawn is told apart by what it is.
    boxes = {
        f"in {name}": Box(name=name, under=str(one.type), look="io") for name, one in definition.inputs.items()
    }
    known = {name: f"in {name}" for name in definition.inputs}
    drawing = _graph(definition.nodes, known, boxes)
    for name, edge in definition.outputs.items():
        drawing.boxes[f"out {name}"] = Box(name=name, under="output", look="io")
        drawing.edges.append((_of(edge, known), f"out {name}", _port(edge)))
    return drawing


def _graph(nodes: Mapping[str, NodeSpec], known: dict[str, str], boxes: dict[str, Box]) -> Drawing:
    drawing = Drawing(boxes, [])
    for name, spec in nodes.items():
        known[name] = name
        boxes[name] = _box(spec)
    for name, spec in nodes.items():
        for edge in _edges(spec, set(known)):
            drawing.edges.append((_of(edge, known), name, _port(edge)))
    return drawing


def _box(spec: NodeSpec) -> Box:
    if spec.model:
        version = f" v{spec.version}" if spec.version is not None else ""
        return Box(name=spec.name, under=spec.model + version, look="model")
    under = f"map {spec.inputs['over'].text}" if spec.op == "map" else spec.op
    box = Box(name=spec.name, under=under, look="body" if spec.bodies() else "op")
    for body, said in zip(spec.bodies(), _said(spec), strict=True):
        box.inner.append(_body(spec, body, said))
    return box


def _body(spec: NodeSpec, body: BodySpec, said: str) -> Drawing:
    known: dict[str, str] = {}
    boxes: dict[str, Box] = {}
    if spec.item:
        boxes["in " + spec.item] = Box(name=spec.item, under="each item", look="io")
        known[spec.item] = "in " + spec.item
    drawing = _graph(body.nodes, known, boxes)
    drawing.boxes["out "] = Box(name=body.output.text, under="its value", look="io")
    if body.output.text.split(".")[0] in known:
        drawing.edges.append((_of(body.output, known), "out ", ""))
    drawing.title = said
    return drawing


def _said(spec: NodeSpec) -> list[str]:
    if spec.body is not None:
        return [""]
    said = []
    for case in spec.cases:
        text = ", ".join(case.when) if case.when else "otherwise"
        said.append(text if case.at_least is None else f"at least {case.at_least:g}")
    return said


def _edges(spec: NodeSpec, known: set[str]) -> list[Edge]:
    """The edges into a node from what is drawn beside it; those of its bodies lead to the node itself."""
    found = {edge.text: edge for edge in spec.inputs.values()}
    for body in spec.bodies():
        for inner in body.nodes.values():
            found |= {edge.text: edge for edge in _edges(inner, known)}
        found[body.output.text] = body.output
    return [edge for edge in found.values() if edge.text.split(".")[0] in known - {spec.name}]


def _of(edge: Edge, known: Mapping[str, str]) -> str:
    return known[edge.text.split(".")[0]]


def _port(edge: Edge) -> str:
    return edge.text.partition(".")[2]


def _render(drawing: Drawing) -> list[str]:
    lines, labels = [], {}
    for source, target, port in drawing.edges:
        start, end = _leaves(drawing, source, port), _reaches(drawing, source, target, port)
        lines.append(_line(drawing.boxes[source], start, drawing.lanes_of(source, target, port), end))
        if port:  # several edges from one port have one label
            labels[start] = (
                f'<text class="small port" x="{start[0] + 5:g}" y="{start[1] - 3:g}">'
                f"{escape(_short(port, 12))}</text>"
            )
    parts = [*lines, *labels.values()]
    for box in drawing.boxes.values():
        parts += _shape(box)
    return parts


def _leaves(drawing: Drawing, source: str, port: str) -> tuple[float, float]:
    """Where the edges of one port leave its box: each port at a height of its own."""
    box = drawing.boxes[source]
    ports = list(dict.fromkeys(one for name, _, one in drawing.edges if name == source))
    return box.x + box.width, _spread(box, ports.index(port), len(ports))


def _reaches(drawing: Drawing, source: str, target: str, port: str) -> tuple[float, float]:
    """Where an edge reaches its box: those from above to below as they come."""
    box = drawing.boxes[target]
    coming = sorted(
        {(_comes_from(drawing, name, target, one), name, one) for name, to, one in drawing.edges if to == target}
    )
    place = next(at for at, (_, name, one) in enumerate(coming) if (name, one) == (source, port))
    return box.x, _spread(box, place, len(coming))


def _comes_from(drawing: Drawing, source: str, target: str, port: str) -> float:
    """The height of an edge before the last column."""
    lanes = drawing.lanes_of(source, target, port)
    return lanes[-1].middle if lanes else _leaves(drawing, source, port)[1]


def _spread(box: Box, place: int, count: int) -> float:
    """The height of one of several edges; close together at the middle of a large box."""
    step = min(LINE, box.height / (count + 1))
    return box.y + box.height / 2 + step * (place - (count - 1) / 2)


def _line(box: Place, start: tuple[float, float], lanes: Sequence[Place], end: tuple[float, float]) -> str:
    """Straight to the end of each column, then a curve to the next: between columns there are no boxes."""
    path = f"M{start[0]:g} {start[1]:g}"
    ways = [(box.right, start[1]), *((lane.right, lane.middle) for lane in lanes)]
    begins = [(lane.x, lane.middle) for lane in lanes]
    for (x, y), (to_x, to_y) in zip(ways, [*begins, end], strict=True):
        middle = (x + to_x) / 2
        path += f"H{x:g}C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}"
    return f'<path class="edge" marker-end="url(#tip)" d="{path}"/>'


def _shape(box: Box) -> list[str]:
    place = f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}"'
    parts = [
        f'<rect class="{box.look}" {place} rx="6"/>',
        f'<text x="{box.x + 10:g}" y="{box.y + 18:g}">{escape(_short(box.name, 21))}</text>',
    ]
    if not box.inner:
        under = escape(_short(box.under, 24))
        parts.append(f'<text class="small" x="{box.x + 10:g}" y="{box.y + 34:g}">{under}</text>')
        return parts
    y = box.y + HEAD
    for inner in box.inner:
        said = escape(_short(inner.title or box.under, 40))
        parts.append(f'<text class="small" x="{box.x + PAD:g}" y="{y + 12:g}">{said}</text>')
        parts.append(f'<g transform="translate({box.x + PAD:g} {y + HEAD - 8:g})">')
        parts += [*_render(inner), "</g>"]
        y += inner.height + HEAD + GAP_Y / 2
    return parts


def _short(text: str, most: int) -> str:
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    return text if len(text) <= most else text[: most - 1] + "…"
