"""From what is desired and what is, the actions that lead from one to the other. A function of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.control.desired import DesiredDeployment


@dataclass(frozen=True, slots=True)
class ActualModel:
    """What this node does for one model.

    `generation` of the model `origin` is the one last applied or attempted; `busy` while an action for it is
    under way; `failed` when that attempt did not succeed, with `retry_at` in seconds of the same clock as `now`;
    `removing` while it is being taken down for good.
    """

    generation: int
    origin: str = ""
    busy: bool = False
    failed: bool = False
    retry_at: float = 0.0
    removing: bool = False


@dataclass(frozen=True, slots=True)
class Apply:
    """Bring a model to this desired state, whatever is under way for it."""

    desired: DesiredDeployment


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a model out of service; `desired` is None when its row is gone."""

    model: str
    desired: DesiredDeployment | None


Action = Apply | Remove


def plan(desired: Mapping[str, DesiredDeployment], actual: Mapping[str, ActualModel], now: float) -> list[Action]:
    """The actions for every model whose actual state is not the desired one, in name order."""
    actions: list[Action] = []
    for name in sorted({*desired, *actual}):
        action = _for_one(name, desired.get(name), actual.get(name), now)
        if action is not None:
            actions.append(action)
    return actions


def next_retry(actual: Mapping[str, ActualModel]) -> float | None:
    """The earliest moment at which a failed model should be tried again; None when there is none."""
    return min((a.retry_at for a in actual.values() if a.failed and not a.busy), default=None)


def _for_one(
    name: str, desired: DesiredDeployment | None, actual: ActualModel | None, now: float
) -> Action | None:
    if desired is None:
        gone = actual is None or actual.removing or _must_wait(actual, now)
        return None if gone else Remove(name, None)
    wanted = Apply(desired) if desired.running else Remove(name, desired)
    # A model that was deleted and made again begins its generations anew: the number alone tells nothing.
    if actual is None or (actual.origin, actual.generation) != (desired.origin, desired.generation):
        return wanted
    return wanted if actual.failed and not _must_wait(actual, now) else None


def _must_wait(actual: ActualModel, now: float) -> bool:
    """Whether a failed one is being tried again already, or must not be yet."""
    return actual.failed and (actual.busy or now < actual.retry_at)
