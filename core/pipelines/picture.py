"""A drawing of a definition as SVG: nodes in columns by their distance from the inputs, bodies as boxes within."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final

from core.pipelines.definition import BodySpec, Definition, Edge, NodeSpec

WIDTH, HEIGHT, GAP_X, GAP_Y, PAD = 150.0, 44.0, 70.0, 16.0, 14.0
LINE: Final = 13.0
"""Between two edges that leave or reach a box at one side, so that what is written on them can be read."""
HEAD: Final = 26.0
"""Of a node with bodies, above them."""
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#1f2933}.small{font-size:10px;fill:#52606d}"
    ".model{fill:#dbeafe;stroke:#2563eb}.op{fill:#f5f7fa;stroke:#7b8794}.io{fill:#dcfce7;stroke:#16a34a}"
    ".body{fill:#fffbea;stroke:#b7791f;stroke-dasharray:4 3}.edge{fill:none;stroke:#7b8794;stroke-width:1.3}"
    ".port{paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}"
)


@dataclass(slots=True)
class Box:
    """Something drawn: its text, its look, its place and size in pixels, and what is drawn within it."""

    name: str
    under: str
    look: str
    width: float = WIDTH
    height: float = HEIGHT
    x: float = 0.0
    y: float = 0.0
    inner: list[Drawing] = field(default_factory=list)


@dataclass(slots=True)
class Drawing:
    """Boxes by name with the edges between them, and the size of it all."""

    boxes: dict[str, Box]
    edges: list[tuple[str, str, str]]
    title: str = ""
    width: float = 0.0
    height: float = 0.0


def draw(definition: Definition, title: str) -> str:
    """The SVG document. Names come out escaped; no script, no link, no font of elsewhere."""
    drawing = _whole(definition)
    _lay_out(drawing)
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
    boxes = {f"in {name}": Box(name, str(one.type), "io") for name, one in definition.inputs.items()}
    known = {name: f"in {name}" for name in definition.inputs}
    drawing = _graph(definition.nodes, known, boxes)
    for name, edge in definition.outputs.items():
        drawing.boxes[f"out {name}"] = Box(name, "output", "io")
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
        return Box(spec.name, spec.model + version, "model")
    under = f"map {spec.inputs['over'].text}" if spec.op == "map" else spec.op
    box = Box(spec.name, under, "body" if spec.bodies() else "op")
    for body, said in zip(spec.bodies(), _said(spec), strict=True):
        box.inner.append(_body(spec, body, said))
    return box


def _body(spec: NodeSpec, body: BodySpec, said: str) -> Drawing:
    known: dict[str, str] = {}
    boxes: dict[str, Box] = {}
    if spec.item:
        boxes["in " + spec.item] = Box(spec.item, "each item", "io")
        known[spec.item] = "in " + spec.item
    drawing = _graph(body.nodes, known, boxes)
    drawing.boxes["out"] = Box(body.output.text, "its value", "io")
    if body.output.text.split(".")[0] in known:
        drawing.edges.append((_of(body.output, known), "out", ""))
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


def _lay_out(drawing: Drawing) -> None:
    """Columns by the longest way from the left; each box as large as what is in it."""
    for box in drawing.boxes.values():
        for inner in box.inner:
            _lay_out(inner)
        if box.inner:
            box.width = max(WIDTH, *(inner.width for inner in box.inner)) + 2 * PAD
            box.height = HEAD + sum(inner.height + HEAD + GAP_Y / 2 for inner in box.inner)
    for name, box in drawing.boxes.items():
        ports = {port for source, _, port in drawing.edges if source == name}
        box.height = max(box.height, LINE * (len(ports) + 1))
    columns = _columns(drawing)
    x = 0.0
    for column in columns:
        y = 0.0
        for box in column:
            box.x, box.y = x, y
            y += box.height + GAP_Y
        drawing.height = max(drawing.height, y - GAP_Y)
        x += max(box.width for box in column) + GAP_X
    drawing.width = x - GAP_X
    for column in columns:
        used = column[-1].y + column[-1].height
        for box in column:
            box.y += (drawing.height - used) / 2


def _columns(drawing: Drawing) -> list[list[Box]]:
    depth = dict.fromkeys(drawing.boxes, 0)
    for _ in drawing.boxes:  # as many rounds as there are boxes are enough without a cycle
        for source, target, _port_name in drawing.edges:
            depth[target] = max(depth[target], depth[source] + 1)
    last = max(depth.values(), default=0)
    for name in drawing.boxes:
        if name.startswith("out"):
            depth[name] = last
    columns: list[list[Box]] = [[] for _ in range(last + 1)]
    for name, box in drawing.boxes.items():
        columns[depth[name]].append(box)
    return [column for column in columns if column]


def _render(drawing: Drawing) -> list[str]:
    lines, labels = [], {}
    for source, target, port in drawing.edges:
        start, end = _leaves(drawing, source, port), _reaches(drawing, source, target, port)
        lines.append(_line(start, end))
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
    """Where an edge reaches its box: from above to below as the boxes it comes from lie."""
    box = drawing.boxes[target]
    coming = sorted(
        {(drawing.boxes[name].y, name, one) for name, to, one in drawing.edges if to == target},
    )
    place = next(at for at, (_, name, one) in enumerate(coming) if (name, one) == (source, port))
    return box.x, _spread(box, place, len(coming))


def _spread(box: Box, place: int, count: int) -> float:
    """The height of one of several edges; close together at the middle of a large box."""
    step = min(LINE, box.height / (count + 1))
    return box.y + box.height / 2 + step * (place - (count - 1) / 2)


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    middle = (x1 + x2) / 2
    curve = f"M{x1:g} {y1:g}C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"
    return f'<path class="edge" marker-end="url(#tip)" d="{curve}"/>'


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
