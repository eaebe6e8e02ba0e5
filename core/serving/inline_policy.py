"""Which batches are run on the event loop itself, because handing them to a thread would take longer.

A thread has to be woken, has to get the interpreter's lock, and wakes the loop in turn: 50 to 500 microseconds
of a busy core, where a small model is done in 10. It is only right when a run cannot take long: its time must
follow from the shapes (`Engine.bounded`), the shapes must be fixed but for the batch, and each size must have been
measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.signature import Signature

INLINE_S = 0.0001
"""How long a batch may take: about what reading a small JSON body there takes."""


def inline_items(bounded: bool, signature: Signature, costs: Mapping[int, float]) -> int:
    """The largest batch to run on the event loop, 0 for none. `costs`: seconds an item, by measured batch size."""
    if not bounded or any(-1 in spec.shape[1:] for spec in signature.inputs):
        return 0
    most = 0
    for size, cost in sorted(costs.items()):
        if size * cost > INLINE_S:
            break
        most = size
    return most
