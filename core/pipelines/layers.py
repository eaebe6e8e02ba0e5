"""Where the boxes of a drawing go: columns by the longest way from the left, lanes for edges that pass a column.

As layered drawing does it (Sugiyama, Tagawa and Toda, 1981): a long edge gets a place of its own in each column
between its ends, so that no edge runs through a box. The order in a column is that of what each is connected to,
and each goes as near to that as its neighbours let it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

WIDTH, HEIGHT, GAP_X, GAP_Y, PAD = 150.0, 44.0, 70.0, 16.0, 14.0
LINE: Final = 13.0
"""Between two edges that leave or reach a box at one side, so that what is written on them can be read."""
HEAD: Final = 26.0
"""Of a node with bodies, above them."""
_ROUNDS: Final = 4

Port = tuple[str, str]
"""A box, and the port of it that edges begin at."""


@dataclass(slots=True, eq=False)
class Place:
    """A place in a column: its size, and where it is, in pixels."""

    width: float = 0.0
    height: float = LINE
    x: float = 0.0
    y: float = 0.0
    right: float = 0.0
    """The end of its column, which a box may be narrower than."""

    @property
    def middle(self) -> float:
        """Half-way down."""
        return self.y + self.height / 2


@dataclass(slots=True, eq=False)
class Box(Place):
    """Something drawn: its text, its look, and what is drawn within it."""

    name: str = ""
    under: str = ""
    look: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    inner: list[Drawing] = field(default_factory=list)


@dataclass(slots=True)
class Drawing:
    """Boxes by name with the edges between them (source, target, port), and the size of it all."""

    boxes: dict[str, Box]
    edges: list[tuple[str, str, str]]
    title: str = ""
    width: float = 0.0
    height: float = 0.0
    lanes: dict[Port, list[Place]] = field(default_factory=dict)
    """Of edges that pass columns, a place in each of those; edges from one port share them as far as they go."""

    def lanes_of(self, source: str, target: str, port: str) -> Sequence[Place]:
        """The places that an edge passes on its way."""
        return [lane for lane in self.lanes.get((source, port), ()) if lane.x < self.boxes[target].x]


def lay_out(drawing: Drawing) -> None:
    """Give everything its size and its place."""
    _give_sizes(drawing)
    depths = _depths(drawing)
    columns: list[list[Place]] = [[] for _ in range(max(depths.values(), default=0) + 1)]
    for name, box in drawing.boxes.items():
        columns[depths[name]].append(box)
    near = _connect(drawing, depths, columns)
    for forward in (True, False, True):
        _order(columns if forward else columns[::-1], near)
    _set_across(columns)
    for turn in range(_ROUNDS):
        _set_down(columns if turn % 2 == 0 else columns[::-1], near)
    top = min((place.y for column in columns for place in column), default=0.0)
    for column in columns:
        for place in column:
            place.y -= top
            drawing.height = max(drawing.height, place.y + place.height)
            drawing.width = max(drawing.width, place.x + place.width)


def _give_sizes(drawing: Drawing) -> None:
    """Each box as large as what is in it, and as high as its ports need."""
    for name, box in drawing.boxes.items():
        for inner in box.inner:
            lay_out(inner)
        if box.inner:
            box.width = max(WIDTH, *(inner.width for inner in box.inner)) + 2 * PAD
            box.height = HEAD + sum(inner.height + HEAD + GAP_Y / 2 for inner in box.inner)
        ports = {port for source, _, port in drawing.edges if source == name}
        box.height = max(box.height, LINE * (len(ports) + 1))


def _depths(drawing: Drawing) -> dict[str, int]:
    """The column of each box: the longest way from the left; outputs stand at the right."""
    depths = dict.fromkeys(drawing.boxes, 0)
    for _ in drawing.boxes:  # as many rounds as there are boxes are enough without a cycle
        for source, target, _port in drawing.edges:
            depths[target] = max(depths[target], depths[source] + 1)
    last = max(depths.values(), default=0)
    return {name: last if name.startswith("out ") else depth for name, depth in depths.items()}


def _connect(
    drawing: Drawing, depths: Mapping[str, int], columns: Sequence[list[Place]]
) -> dict[Place, list[Place]]:
    """Make the lanes; answers what each place is connected to in the columns beside its own."""
    near: dict[Place, list[Place]] = {place: [] for column in columns for place in column}
    for source, target, port in drawing.edges:
        lanes = drawing.lanes.setdefault((source, port), [])
        for depth in range(depths[source] + 1 + len(lanes), depths[target]):
            lanes.append(Place())
            columns[depth].append(lanes[-1])
            near[lanes[-1]] = []
            _join(near, lanes[-2] if len(lanes) > 1 else drawing.boxes[source], lanes[-1])
        passed = lanes[: depths[target] - depths[source] - 1]
        _join(near, passed[-1] if passed else drawing.boxes[source], drawing.boxes[target])
    return near


def _join(near: dict[Place, list[Place]], one: Place, other: Place) -> None:
    near[one].append(other)
    near[other].append(one)


def _order(columns: Sequence[list[Place]], near: Mapping[Place, Sequence[Place]]) -> None:
    """Sort each column by the mean rank of what it is connected to in the column before."""
    ranks: dict[Place, float] = {}
    for column in columns:
        wanted = {}
        for at, place in enumerate(column):
            before = [ranks[one] for one in near[place] if one in ranks]
            wanted[place] = sum(before) / len(before) if before else (at + 0.5) / len(column)
        column.sort(key=wanted.__getitem__)
        ranks.update({place: (at + 0.5) / len(column) for at, place in enumerate(column)})


def _set_across(columns: Sequence[Sequence[Place]]) -> None:
    """Columns one after the other, each as wide as the widest in it."""
    x = 0.0
    for column in columns:
        right = x + max((place.width for place in column), default=0.0)
        for place in column:
            place.x, place.right = x, right
        x = right + GAP_X


def _set_down(columns: Sequence[Sequence[Place]], near: Mapping[Place, Sequence[Place]]) -> None:
    """Bring each place as near as can be to the middle of what it is connected to in the columns before it."""
    seen: set[Place] = set()
    for column in columns:
        wanted = []
        for place in column:
            before = [one.middle for one in near[place] if one in seen]
            wanted.append((sum(before) / len(before) if before else place.middle) - place.height / 2)
        for place, y in zip(column, _apart(column, wanted), strict=True):
            place.y = y
        seen.update(column)


def _apart(column: Sequence[Place], wanted: Sequence[float]) -> list[float]:
    """Heights in this order that leave gaps, with the least sum of squares of what each is off.

    Without what stands above each, that is a row of heights that may not fall: neighbours that would are pooled.
    """
    above, y = [], 0.0
    for place in column:
        above.append(y)
        y += place.height + GAP_Y
    pools: list[tuple[float, int]] = []
    for one, used in zip(wanted, above, strict=True):
        mean, count = one - used, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        pools.append((mean, count))
    found = [mean for mean, count in pools for _ in range(count)]
    return [one + used for one, used in zip(found, above, strict=True)]
