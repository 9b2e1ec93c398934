"""Who sits out, for how long, and how one comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.coordination.quarantine import (
    MAX_ROUNDS,
    QuarantineRecord,
    is_quarantined,
    mark_late,
    record_strike,
    remove_strike,
)

REASONS = ("no_reply", "late", "malformed", "norm_exceeded")
SILENT = {"no_reply", "late"}

rounds = st.integers(0, 1000)
reasons = st.sampled_from(REASONS)
histories = st.lists(st.tuples(reasons, st.integers(1, 40)), min_size=1, max_size=12)


def struck(history: list[tuple[str, int]]) -> tuple[QuarantineRecord, int]:
    """The record after strikes that are so many rounds apart, and the rounds ended at the last one."""
    quarantine, ended = None, 0
    for reason, gap in history:
        ended += gap
        quarantine = record_strike(quarantine, reason, ended)
    assert quarantine is not None
    return quarantine, ended


# --- strikes -------------------------------------------------------------------------------------------------

COSTS = [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 16), (60, 16), (200, 16)]


@pytest.mark.parametrize(("strikes", "cost"), COSTS)
def test_each_offence_costs_twice_the_turns_of_the_one_before_up_to_sixteen(strikes: int, cost: int) -> None:
    quarantine, ended = struck([("malformed", 50)] * strikes)
    assert [is_quarantined(quarantine, ended + n) for n in range(1, cost + 3)] == [True] * cost + [False] * 2


def test_a_site_without_a_record_is_asked() -> None:
    assert not is_quarantined(None, 0)


@given(history=histories, reason=reasons)
def test_what_happens_twice_in_one_turn_counts_once(history: list[tuple[str, int]], reason: str) -> None:
    quarantine, ended = struck([*history, (reason, 1)])
    assert record_strike(quarantine, reason, ended) == quarantine
    assert record_strike(quarantine, "malformed", ended).strikes == quarantine.strikes


@given(history=histories, reason=reasons, later=st.integers(1, 100))
def test_one_more_offence_never_shortens_what_a_site_sits_out(
    history: list[tuple[str, int]], reason: str, later: int
) -> None:
    quarantine, ended = struck(history)
    worse = record_strike(quarantine, reason, ended + later)
    assert worse.quarantined_until > quarantine.quarantined_until
    assert worse.quarantined_until <= ended + later + 1 + MAX_ROUNDS
    assert worse.strikes == quarantine.strikes + 1


@given(history=histories)
def test_everybody_is_asked_again_in_the_end(history: list[tuple[str, int]]) -> None:
    quarantine, ended = struck(history)
    assert not is_quarantined(quarantine, ended + 1 + MAX_ROUNDS)


@given(history=histories)
def test_a_record_that_was_written_down_and_read_again_decides_the_same(history: list[tuple[str, int]]) -> None:
    quarantine, ended = struck(history)
    again = QuarantineRecord.model_validate_json(quarantine.canonical())
    assert again == quarantine
    assert [is_quarantined(again, n) for n in range(ended, ended + 20)] == [
        is_quarantined(quarantine, n) for n in range(ended, ended + 20)
    ]


# --- ways back ------------------------------------------------------------------------------------------------


@given(history=histories)
def test_as_many_admitted_updates_as_offences_leave_no_record(history: list[tuple[str, int]]) -> None:
    quarantine, ended = struck(history)
    left: QuarantineRecord | None = quarantine
    for number in range(1, quarantine.strikes + 1):
        assert left is not None
        left = remove_strike(left, ended + 50 + number)
        assert (left is None) == (number == quarantine.strikes)


@given(history=histories, later=st.integers(0, 100))
def test_whoever_was_admitted_sits_out_nothing_that_is_left(history: list[tuple[str, int]], later: int) -> None:
    """Also where it had been asked early: because it joined anew, or in the second attempt of a round."""
    quarantine, ended = struck(history)
    left = remove_strike(quarantine, ended + later)
    assert not is_quarantined(left, ended + later + 1)


def test_after_an_admitted_update_the_next_offence_costs_what_the_last_one_did() -> None:
    quarantine, _ = struck([("malformed", 1), ("malformed", 10), ("malformed", 10)])
    left = remove_strike(quarantine, 30)
    again = record_strike(left, "malformed", 31)
    assert again.quarantined_until - 32 == quarantine.quarantined_until - 22 == 4


@given(history=histories, joined=st.integers(1, 5))
def test_only_a_site_that_was_never_worse_than_silent_is_asked_again_because_it_joined_anew(
    history: list[tuple[str, int]], joined: int
) -> None:
    quarantine, ended = struck(history)
    only_silent = {reason for reason, _ in history} <= SILENT
    assert is_quarantined(quarantine, ended + 1)
    assert is_quarantined(quarantine, ended + 1, activations=0)
    assert is_quarantined(quarantine, ended + 1, activations=joined) != only_silent


def test_joining_counts_from_the_last_silence() -> None:
    quarantine = record_strike(None, "no_reply", 3, activations=4)
    assert is_quarantined(quarantine, 4, activations=4)
    assert not is_quarantined(quarantine, 4, activations=5)
    silent_again = record_strike(quarantine, "no_reply", 4, activations=5)
    assert is_quarantined(silent_again, 5, activations=5)


def test_a_late_answer_makes_silence_lateness_and_no_second_offence() -> None:
    silent = record_strike(None, "no_reply", 3)
    late = mark_late(silent)
    assert (late.reason, late.strikes, late.quarantined_until, late.silent) == (
        "late",
        1,
        silent.quarantined_until,
        True,
    )
    forged = record_strike(None, "malformed", 3)
    assert mark_late(forged) == forged
