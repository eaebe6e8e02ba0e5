from __future__ import annotations

import pytest

from core.control.desired import DesiredDeployment
from core.control.plan import Action, ActualModel, Apply, Remove, next_retry, plan

NOW = 100.0


def wanted(generation: int = 2, running: bool = True, origin: str = "a") -> DesiredDeployment:
    return DesiredDeployment(1, "m", generation, running, origin=origin)


def is_(generation: int = 2, **fields: bool | float) -> ActualModel:
    return ActualModel(generation, "a", **fields)  # type: ignore[arg-type]


TABLE: dict[str, tuple[DesiredDeployment | None, ActualModel | None, Action | None]] = {
    "new": (wanted(), None, Apply(wanted())),
    "as desired": (wanted(), is_(), None),
    "changed": (wanted(3), is_(2), Apply(wanted(3))),
    "changed while an older one is being loaded": (wanted(3), is_(2, busy=True), Apply(wanted(3))),
    "being loaded": (wanted(), is_(busy=True), None),
    "undeployed": (wanted(3, running=False), is_(2), Remove("m", wanted(3, running=False))),
    "undeployed already": (wanted(3, running=False), is_(3), None),
    "undeployed, and never seen here": (wanted(3, running=False), None, Remove("m", wanted(3, running=False))),
    "failed, and not due": (wanted(), is_(failed=True, retry_at=NOW + 1), None),
    "failed, and due": (wanted(), is_(failed=True, retry_at=NOW), Apply(wanted())),
    "failed, due and being tried": (wanted(), is_(failed=True, retry_at=NOW, busy=True), None),
    "failed, and changed before it is due": (wanted(3), is_(2, failed=True, retry_at=NOW + 9), Apply(wanted(3))),
    "a removal that failed": (
        wanted(3, running=False),
        is_(3, failed=True, retry_at=NOW),
        Remove("m", wanted(3, running=False)),
    ),
    "deleted": (None, is_(), Remove("m", None)),
    "deleted, and being removed": (None, is_(removing=True, busy=True), None),
    "deleted, and its removal failed": (None, is_(failed=True, retry_at=NOW), Remove("m", None)),
    "deleted, and its removal failed just now": (None, is_(failed=True, retry_at=NOW + 1), None),
    "deleted and made again with the same generation": (wanted(origin="b"), is_(), Apply(wanted(origin="b"))),
    "made again while the old one is being removed": (
        wanted(origin="b"),
        is_(removing=True, busy=True),
        Apply(wanted(origin="b")),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_plan(case: str) -> None:
    desired, actual, action = TABLE[case]
    actions = plan({"m": desired} if desired else {}, {"m": actual} if actual else {}, NOW)
    assert actions == ([action] if action else [])


def test_models_are_planned_in_name_order_and_apart() -> None:
    desired = {name: DesiredDeployment(i, name, 1, True) for i, name in enumerate("cab")}
    assert [a.desired.model for a in plan(desired, {}, NOW) if isinstance(a, Apply)] == ["a", "b", "c"]


def test_next_retry_is_the_earliest_of_those_that_wait() -> None:
    actual = {
        "a": is_(failed=True, retry_at=9.0),
        "b": is_(failed=True, retry_at=7.0),
        "busy": is_(failed=True, retry_at=1.0, busy=True),
        "well": is_(),
    }
    assert next_retry(actual) == 7.0
    assert next_retry({"well": is_()}) is None
