"""Who sits out, for how long, and how one comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.coordination.quarantine import MOST_TURNS, Conduct, forgive, note_late, offend, sits_out

REASONS = ("no_reply", "late", "malformed", "norm_exceeded")
SILENT = {"no_reply", "late"}

turns = st.integers(0, 1000)
reasons = st.sampled_from(REASONS)
histories = st.lists(st.tuples(reasons, st.integers(1, 40)), min_size=1, max_size=12)


def conduct_of(history: list[tuple[str, int]]) -> tuple[Conduct, int]:
    """The record after offences that are so many turns apart, and the turn of the last one."""
    conduct, turn = None, 0
    for reason, gap in history:
        turn += gap
        conduct = offend(conduct, reason, turn)
    assert conduct is not None
    return conduct, turn


# --- offences -------------------------------------------------------------------------------------------------

COSTS = [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 16), (60, 16), (200, 16)]


@pytest.mark.parametrize(("offences", "cost"), COSTS)
def test_each_offence_costs_twice_the_turns_of_the_one_before_up_to_sixteen(offences: int, cost: int) -> None:
    conduct, turn = conduct_of([("malformed", 50)] * offences)
    assert [sits_out(conduct, turn + n) for n in range(1, cost + 3)] == [True] * cost + [False] * 2


def test_a_site_without_a_record_is_asked() -> None:
    assert not sits_out(None, 0)


@given(history=histories, reason=reasons)
def test_what_happens_twice_in_one_turn_counts_once(history: list[tuple[str, int]], reason: str) -> None:
    conduct, turn = conduct_of([*history, (reason, 1)])
    assert offend(conduct, reason, turn) == conduct
    assert offend(conduct, "malformed", turn).offences == conduct.offences


@given(history=histories, reason=reasons, later=st.integers(1, 100))
def test_one_more_offence_never_shortens_what_a_site_sits_out(
    history: list[tuple[str, int]], reason: str, later: int
) -> None:
    conduct, turn = conduct_of(history)
    worse = offend(conduct, reason, turn + later)
    assert worse.asked_again > conduct.asked_again
    assert worse.asked_again <= turn + later + 1 + MOST_TURNS
    assert worse.offences == conduct.offences + 1


@given(history=histories)
def test_everybody_is_asked_again_in_the_end(history: list[tuple[str, int]]) -> None:
    conduct, turn = conduct_of(history)
    assert not sits_out(conduct, turn + 1 + MOST_TURNS)


@given(history=histories)
def test_a_record_that_was_written_down_and_read_again_decides_the_same(history: list[tuple[str, int]]) -> None:
    conduct, turn = conduct_of(history)
    again = Conduct.model_validate_json(conduct.canonical())
    assert again == conduct
    assert [sits_out(again, n) for n in range(turn, turn + 20)] == [
        sits_out(conduct, n) for n in range(turn, turn + 20)
    ]


# --- ways back ------------------------------------------------------------------------------------------------


@given(history=histories)
def test_as_many_admitted_updates_as_offences_leave_no_record(history: list[tuple[str, int]]) -> None:
    conduct, turn = conduct_of(history)
    left: Conduct | None = conduct
    for number in range(1, conduct.offences + 1):
        assert left is not None
        left = forgive(left, turn + 50 + number)
        assert (left is None) == (number == conduct.offences)


@given(history=histories, later=st.integers(0, 100))
def test_whoever_was_admitted_sits_out_nothing_that_is_left(history: list[tuple[str, int]], later: int) -> None:
    """Also where it had been asked early: because it joined anew, or in the second attempt of a round."""
    conduct, turn = conduct_of(history)
    left = forgive(conduct, turn + later)
    assert not sits_out(left, turn + later + 1)


def test_after_an_admitted_update_the_next_offence_costs_what_the_last_one_did() -> None:
    conduct, _ = conduct_of([("malformed", 1), ("malformed", 10), ("malformed", 10)])
    left = forgive(conduct, 30)
    again = offend(left, "malformed", 31)
    assert again.asked_again - 32 == conduct.asked_again - 22 == 4


@given(history=histories, joined=st.integers(1, 5))
def test_only_a_site_that_was_never_worse_than_silent_is_asked_again_because_it_joined_anew(
    history: list[tuple[str, int]], joined: int
) -> None:
    conduct, turn = conduct_of(history)
    only_silent = {reason for reason, _ in history} <= SILENT
    assert sits_out(conduct, turn + 1)
    assert sits_out(conduct, turn + 1, activations=0)
    assert sits_out(conduct, turn + 1, activations=joined) != only_silent


def test_joining_counts_from_the_last_silence() -> None:
    conduct = offend(None, "no_reply", 3, activations=4)
    assert sits_out(conduct, 4, activations=4)
    assert not sits_out(conduct, 4, activations=5)
    silent_again = offend(conduct, "no_reply", 4, activations=5)
    assert sits_out(silent_again, 5, activations=5)


def test_a_late_answer_makes_silence_lateness_and_no_second_offence() -> None:
    silent = offend(None, "no_reply", 3)
    late = note_late(silent)
    assert (late.reason, late.offences, late.asked_again, late.silent) == ("late", 1, silent.asked_again, True)
    forged = offend(None, "malformed", 3)
    assert note_late(forged) == forged
