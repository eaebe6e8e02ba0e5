"""The sums of an artifact's files, kept by several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.store.sums import read_sums, write_sums

SUMS = {f"model-{number}.onnx": "ab" * 32 for number in range(200)}


def test_threads_that_keep_the_same_sums_do_not_take_each_others_files(tmp_path: Path) -> None:
    places = [tmp_path / "sums" / f"{turn:02}" for turn in range(50)]

    with ThreadPoolExecutor(8) as threads:
        for place in places:
            list(threads.map(lambda _, place=place: write_sums(place, SUMS), range(8)))

    assert all(read_sums(place) == SUMS for place in places)
    assert sorted((tmp_path / "sums").iterdir()) == places, "nothing half-written is left"
