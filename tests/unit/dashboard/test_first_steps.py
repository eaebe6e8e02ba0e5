"""The guide from an empty house to the first prediction."""

from __future__ import annotations

import pytest

from app.dashboard.first_steps import Known, first_steps
from core.access.roles import Role

FAR = (
    (Known(), 0),
    (Known("cats", 1), 1),
    (Known("cats", 1, valid=True), 2),
    (Known("cats", 1, valid=True, served="cats"), 3),
    (Known("cats", 1, valid=True, served="cats", answered=True), 4),
)


@pytest.mark.parametrize(("known", "done"), FAR)
def test_each_step_is_checked_off_when_it_is_done(known: Known, done: int) -> None:
    steps = first_steps(known, Role.ADMIN)
    assert [step.done for step in steps] == [True] * done + [False] * (5 - done)


def test_the_next_step_leads_to_the_model_it_is_about() -> None:
    paths = [step.path for step in first_steps(Known("cats", 3, valid=True, served="cats"), Role.ADMIN)]
    assert paths == [
        "/dashboard/models/-/new",
        "/dashboard/models/cats/versions/3",
        "/dashboard/models/cats/deployment",
        "/dashboard/playground?target=cats",
        "/dashboard/access/tokens/new",
    ]


def test_it_is_gone_when_all_is_done_and_for_those_who_only_look() -> None:
    done = Known("cats", 1, valid=True, served="cats", answered=True, token=True)
    assert first_steps(done, Role.ADMIN) == ()
    assert first_steps(Known(), Role.VIEWER) == ()
    assert len(first_steps(Known(), Role.OPERATOR)) == 4  # tokens are an administrator's
