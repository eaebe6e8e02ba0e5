"""The queue of a deployment: room in items, lanes by shape and priority, first in, first out within one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from core.errors import QueueFull
from core.serving.request_queue import QueuedRequest, RequestQueue

Make = Callable[..., QueuedRequest]


@pytest.fixture
def make() -> Iterator[Make]:
    """Requests that wait in no queue yet."""
    loop = asyncio.new_event_loop()

    def request(
        items: int = 1, *, width: int = 4, dtype: Any = np.float32, name: str = "x", at: float = 0.0, **how: Any
    ) -> QueuedRequest:
        inputs = {name: np.zeros((items, width), dtype)}
        return QueuedRequest(inputs, items, loop.create_future(), now=at, deadline=at + 30, **how)

    yield request
    loop.close()


def queue_of(*requests: QueuedRequest, capacity: int = 100) -> RequestQueue:
    queue = RequestQueue(capacity)
    for request in requests:
        queue.admit(request.items)
        queue.push(request)
    return queue


def test_room_is_counted_in_items() -> None:
    queue = RequestQueue(8)
    queue.admit(5)
    queue.admit(3)
    with pytest.raises(QueueFull) as caught:
        queue.admit(1)
    assert caught.value.headers() == {"Retry-After": "1"}
    assert queue.depth == 8, "what is refused takes no room"
    queue.release(3)
    with pytest.raises(QueueFull):
        queue.admit(4)
    queue.admit(3)


def test_a_request_larger_than_the_queue_may_enter_alone() -> None:
    queue = RequestQueue(4)
    queue.admit(9)
    with pytest.raises(QueueFull):
        queue.admit(1)
    queue.release(9)
    queue.admit(1)
    with pytest.raises(QueueFull):
        queue.admit(9)


def test_room_is_taken_before_a_request_waits_and_given_back_when_it_is_taken(make: Make) -> None:
    request = make(3)
    queue = RequestQueue(4)
    queue.admit(3)
    assert (queue.depth, queue.waiting, queue.lanes()) == (3, 0, [])
    queue.push(request)
    assert (queue.depth, queue.waiting) == (3, 3)
    assert queue.take((0,), 8) == [request]
    assert (queue.depth, queue.waiting, queue.lanes()) == (0, 0, [])


def test_first_in_first_out_within_a_lane(make: Make) -> None:
    requests = [make(at=float(i)) for i in range(6)]
    queue = queue_of(*requests)
    assert queue.take((0,), 4) == requests[:4]
    assert queue.take((0,), 4) == requests[4:]


@pytest.mark.parametrize(
    ("sizes", "limit", "taken"),
    [
        ([1, 1, 1], 2, 2),
        ([3, 3, 3], 8, 2),
        ([3, 3, 2], 8, 3),
        ([9, 1], 8, 1),
        ([8, 1], 8, 1),
        ([1, 9], 8, 1),
        ([5, 9, 1], 8, 1),
        ([2], 1, 1),
    ],
)
def test_a_batch_holds_what_fits_in_order_and_the_first_in_any_case(
    make: Make, sizes: list[int], limit: int, taken: int
) -> None:
    """One that does not fit is not overtaken within its lane: it would starve behind smaller ones."""
    requests = [make(size) for size in sizes]
    queue = queue_of(*requests)
    assert queue.take((0,), limit) == requests[:taken]
    left = sum(sizes[taken:])
    assert (queue.depth, queue.waiting) == (left, left)


@pytest.mark.parametrize(
    ("other", "lanes"),
    [
        ({}, 1),
        ({"items": 3}, 1),
        ({"width": 5}, 2),
        ({"dtype": np.int64}, 2),
        ({"name": "y"}, 2),
        ({"priority": 1}, 2),
        ({"solo": True}, 2),
        ({"at": 7.0}, 1),
    ],
)
def test_only_requests_that_fit_together_share_a_lane(make: Make, other: dict[str, Any], lanes: int) -> None:
    assert len(queue_of(make(), make(**other)).lanes()) == lanes


def test_one_that_wants_to_be_alone_shares_with_nobody(make: Make) -> None:
    assert len({lane.shape for lane in queue_of(make(solo=True), make(solo=True)).lanes()}) == 2


def test_what_the_policy_is_told(make: Make) -> None:
    queue = queue_of(make(2, at=3.0), make(at=1.0, priority=0), make(4, at=5.0))
    first, urgent = queue.lanes()
    assert (first.priority, first.oldest, first.items) == (5, 3.0, 6)
    assert (urgent.priority, urgent.oldest, urgent.items) == (0, 1.0, 1)
    assert first.shape == urgent.shape


def test_lanes_are_drawn_from_in_the_order_that_is_given(make: Make) -> None:
    slow, urgent = [make(), make()], [make(priority=0), make(priority=0)]
    queue = queue_of(*slow, *urgent)
    assert queue.take((1, 0), 3) == [*urgent, slow[0]]
    assert queue.take((0,), 3) == [slow[1]]


def test_a_lane_that_has_no_room_left_is_not_drawn_from(make: Make) -> None:
    urgent, large, small = make(6, priority=0), make(4, priority=4), make(2)
    queue = queue_of(urgent, large, small)
    assert queue.take((0, 1, 2), 8) == [urgent, small], "it may be overtaken by other lanes, whose turn it is too"
    assert queue.take((0,), 8) == [large]


def test_one_whose_caller_has_gone_gives_its_place_back(make: Make) -> None:
    requests = [make(2), make(3), make(4, priority=1)]
    queue = queue_of(*requests, capacity=9)
    queue.forget(requests[0])
    assert (queue.depth, queue.waiting, queue.lanes()[0].items) == (7, 7, 3)
    queue.forget(requests[0])
    assert queue.depth == 7, "only once"
    queue.forget(requests[2])
    assert len(queue.lanes()) == 1
    assert queue.take((0,), 9) == [requests[1]]
    queue.forget(requests[1])
    assert (queue.depth, queue.waiting) == (0, 0)


def test_clearing_gives_back_what_waited_and_leaves_the_room_of_what_is_being_prepared(make: Make) -> None:
    requests = [make(2), make(3, width=5)]
    queue = queue_of(*requests)
    queue.admit(4)
    assert queue.clear() == requests
    assert (queue.depth, queue.waiting, queue.lanes()) == (4, 0, [])


def test_siblings_are_counted_while_they_wait(make: Make) -> None:
    siblings = [make(2, sibling=True) for _ in range(4)]
    queue = queue_of(make(), *siblings)
    assert (queue.siblings, queue.waiting) == (8, 9)
    queue.take([0], 3)
    assert queue.siblings == 6
    queue.forget(siblings[2])
    assert queue.siblings == 4
    queue.clear()
    assert queue.siblings == 0
