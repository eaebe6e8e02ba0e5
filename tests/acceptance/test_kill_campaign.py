"""A short form of benchmarks/kill_campaign: three kills at random moments of uploads, deployments and removals."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kill_campaign import Campaign, Leg


def test_what_was_acknowledged_outlives_kills_and_nothing_half_done_is_seen(tmp_path: Path) -> None:
    tally = Campaign(tmp_path, Leg(seed=7)).run(3, most_s=1.0)
    assert tally.failures == []
    assert tally.kills == 3
    assert tally.uploads > 0
