from __future__ import annotations

import os

import pytest

from core.serving.flight import IDS_PER_SLOT, FlightRecord, FlightRecorder


@pytest.fixture
def recorder() -> FlightRecorder:
    return FlightRecorder(3)


@pytest.fixture
def record(recorder: FlightRecorder) -> FlightRecord:
    return FlightRecord(os.dup(recorder.fd))


def test_who_is_aboard_and_who_has_landed(recorder: FlightRecorder, record: FlightRecord) -> None:
    assert record.aboard() == set()
    recorder.board(0, [1, 2, 2**64 - 1])
    recorder.board(2, [7])
    assert record.aboard() == {1, 2, 2**64 - 1, 7}
    recorder.land(0)
    assert record.aboard() == {7}
    recorder.board(2, [8, 9])
    assert record.aboard() == {8, 9}


def test_of_a_huge_batch_the_first_are_known_and_no_other_slot_is_touched(
    recorder: FlightRecorder, record: FlightRecord
) -> None:
    recorder.board(1, [5])
    recorder.board(0, range(10, 10 + 2 * IDS_PER_SLOT))
    assert record.aboard() == {5, *range(10, 10 + IDS_PER_SLOT)}
    recorder.land(0)
    assert record.aboard() == {5}


def test_a_slot_beyond_the_recorder_is_not_recorded(recorder: FlightRecorder, record: FlightRecord) -> None:
    recorder.board(3, [1])
    recorder.land(3)
    assert record.aboard() == set()


def test_the_record_outlives_the_recorder(recorder: FlightRecorder, record: FlightRecord) -> None:
    recorder.board(0, [4])
    os.close(recorder.fd)
    del recorder
    assert record.aboard() == {4}
