"""A site's unfinished streams fill a few messages' worth of memory, whatever it sends."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aegis.runtimes.nvflare.stream_budget import MARGIN, MIN_BYTES, StreamBudget

MB = 1 << 20


def test_a_stream_that_does_not_end_is_cut_off_and_another_sites_is_not() -> None:
    budget = StreamBudget()
    taken = [budget.take("clinic-1", 1, MB, is_last=False) for _ in range(200)]

    assert taken == [True] * (MIN_BYTES // MB) + [False] * (200 - MIN_BYTES // MB)
    assert budget.take("clinic-2", 1, MB, is_last=False)


def test_a_message_of_the_size_that_was_asked_for_fits_and_its_end_makes_room() -> None:
    budget = StreamBudget()
    budget.expect(200 * MB)

    for number in range(3):
        assert all(budget.take("clinic-1", number, MB, is_last=last == 399) for last in range(400))


def test_a_stream_that_fell_silent_is_forgotten() -> None:
    now = [0.0]
    budget = StreamBudget(lambda: now[0])
    assert budget.take("clinic-1", 1, MIN_BYTES, is_last=False)
    assert not budget.take("clinic-1", 2, MB, is_last=False)

    now[0] = 301.0

    assert budget.take("clinic-1", 2, MB, is_last=False)


chunks = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 80 * MB), st.booleans()), max_size=60)


@given(chunks, st.integers(0, 100 * MB))
def test_what_is_held_of_a_site_never_exceeds_the_limit(sent: list[tuple[int, int, bool]], asked: int) -> None:
    budget, held = StreamBudget(), dict[Any, int]()
    budget.expect(asked)
    for stream, size, is_last in sent:
        if budget.take("clinic-1", stream, size, is_last=is_last):
            held[stream] = held.get(stream, 0) + size
            assert sum(held.values()) <= MIN_BYTES + MARGIN * asked
            if is_last:
                del held[stream]
