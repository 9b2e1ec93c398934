"""The audit log as a story: what a crash may leave in it is understood, what no run writes is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aegis.errors import VerificationFailed
from aegis.verification.audit_trail import AuditTrail, read_trail
from coreason_enclave.crypto.hash_log import HashLog

JOB, MODEL = "aa" * 32, "bb" * 32

Act = tuple[str, str, dict[str, Any]]

STARTED: Act = ("run", "started", {"job_digest": JOB})
FINISHED: Act = ("run", "finished", {"model": MODEL, "averaged_rounds": 1})


def opened(number: int) -> Act:
    return "round", "opened", {"round": number, "attempt": 1}


def completed(number: int) -> Act:
    return "round", "completed", {"round": number, "model": f"{number:02x}" * 32}


def resumed(after: int) -> Act:
    return "run", "resumed", {"completed_rounds": after}


def admitted(site: str, number: int, **changes: Any) -> Act:
    details: dict[str, Any] = {
        "site": site,
        "round": number,
        "update": "cc" * 32,
        "event": {"type": "poisson_sampled_gaussian", "noise_multiplier": 1.0, "sample_rate": 0.5, "steps": 4},
        "provenance": "simulated",
        "noise_source": "site_keystream",
        "unit": "person",
        "delta": 1e-5,
        "ledger_head": {"seq": 3, "hash": "dd" * 32},
    }
    return "admit", "accepted", {**details, **changes}


def trail_of(folder: Path, *acts: Act, actor: str = "coordinator") -> AuditTrail:
    path = folder / "audit.jsonl"
    log = HashLog(path, clock=lambda: 0.0)
    for action, outcome, details in acts:
        log.append(actor=actor, action=action, outcome=outcome, details={"profile": "development", **details})
    log.close()
    return read_trail(path.read_bytes())


def told(trail: AuditTrail) -> list[tuple[int, list[str]]]:
    return [(each.number, sorted(each.admitted)) for each in trail.rounds]


def test_a_run_without_incident(tmp_path: Path) -> None:
    trail = trail_of(tmp_path, STARTED, opened(1), admitted("a", 1), admitted("b", 1), completed(1), FINISHED)

    assert told(trail) == [(1, ["a", "b"])]
    assert (trail.jobs, trail.rounds[0].model) == ({JOB}, "01" * 32)
    assert trail.released is not None
    assert trail.released.model == MODEL


def test_an_update_of_an_attempt_that_was_repeated_counts_for_the_site_and_not_for_the_round(tmp_path: Path) -> None:
    repeat: Act = ("round", "repeat", {"round": 1, "why": "too few"})
    trail = trail_of(tmp_path, STARTED, opened(1), admitted("a", 1), repeat, opened(1), admitted("b", 1), completed(1))

    assert told(trail) == [(1, ["b"])]
    assert [update.site for update in trail.updates] == ["a", "b"]


def test_a_crash_before_the_state_was_kept_makes_the_round_be_told_twice_and_counted_once(tmp_path: Path) -> None:
    once = (admitted("a", 1), admitted("b", 1))
    trail = trail_of(tmp_path, STARTED, opened(1), *once, resumed(0), *once, completed(1))

    assert told(trail) == [(1, ["a", "b"])]
    assert len(trail.updates) == 4


def test_a_site_that_answered_before_a_crash_and_not_after_it_is_not_of_the_round(tmp_path: Path) -> None:
    trail = trail_of(
        tmp_path, STARTED, opened(1), admitted("a", 1), admitted("b", 1), resumed(0), admitted("b", 1), completed(1)
    )

    assert told(trail) == [(1, ["b"])]
    assert [update.site for update in trail.updates] == ["a", "b", "b"]


def test_a_crash_between_the_state_and_its_line_leaves_a_round_that_the_resumption_vouches_for(tmp_path: Path) -> None:
    trail = trail_of(
        tmp_path, STARTED, opened(1), admitted("a", 1), resumed(1), opened(2), admitted("b", 2), completed(2)
    )

    assert told(trail) == [(1, ["a"]), (2, ["b"])]
    assert trail.rounds[0].model is None


def test_a_crash_after_a_complete_round_changes_nothing(tmp_path: Path) -> None:
    trail = trail_of(
        tmp_path,
        STARTED,
        opened(1),
        admitted("a", 1),
        completed(1),
        resumed(1),
        opened(2),
        admitted("a", 2),
        completed(2),
    )

    assert told(trail) == [(1, ["a"]), (2, ["a"])]


def test_a_crash_before_anything_was_kept_starts_the_same_job_twice(tmp_path: Path) -> None:
    assert trail_of(tmp_path, STARTED, STARTED).jobs == {JOB}


def test_only_the_last_line_releases_a_model(tmp_path: Path) -> None:
    assert trail_of(tmp_path, STARTED, FINISHED, resumed(0)).released is None
    assert trail_of(tmp_path, FINISHED).released is not None


def test_lines_of_other_actors_and_unknown_acts_are_passed_over(tmp_path: Path) -> None:
    assert trail_of(tmp_path, ("run", "started", {"nothing": 1}), actor="log").jobs == frozenset()
    assert trail_of(tmp_path, ("visit", "noted", {})).rounds == ()


MALFORMED = {
    "a start without a job": ("run", "started", {}),
    "an admission without a ledger head": ("admit", "accepted", {"site": "a", "round": 1}),
    "an event that nobody can account for": admitted("a", 1, event={"type": "laplace"}),
    "a site by an unsafe name": admitted("../a", 1),
    "a round completed without a model": ("round", "completed", {"round": 1}),
    "a resumption after rounds that were never told of": resumed(2),
}


@pytest.mark.parametrize("act", MALFORMED.values(), ids=MALFORMED)
def test_a_line_that_makes_no_sense_is_refused_by_its_number(tmp_path: Path, act: Act) -> None:
    with pytest.raises(VerificationFailed, match=r"line 2|lines missing"):
        trail_of(tmp_path, STARTED, act)
