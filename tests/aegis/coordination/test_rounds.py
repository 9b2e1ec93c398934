from __future__ import annotations

from typing import Any

import pytest

from aegis.coordination.round_decisions import NextAct, decide, updates_required
from coreason_enclave.schemas import Aggregator

REQUIRED = {
    "the mean needs min_clients": (2, {"min_clients": 2}),
    "Krum needs 2 f + 3, whatever min_clients says": (5, {"min_clients": 2, "aggregator": "krum", "num_byzantine": 1}),
    "Multi-Krum needs 2 f + 3": (7, {"min_clients": 2, "aggregator": "multi_krum", "num_byzantine": 2}),
    "the trimmed mean needs 2 f + 1": (3, {"min_clients": 2, "aggregator": "trimmed_mean", "num_byzantine": 1}),
    "the median needs 2 f + 1": (5, {"min_clients": 2, "aggregator": "median", "num_byzantine": 2}),
    "min_clients counts where it is the larger": (9, {"min_clients": 9, "aggregator": "krum", "num_byzantine": 1}),
}


@pytest.mark.parametrize(("required", "changes"), REQUIRED.values(), ids=REQUIRED)
def test_updates_required(job_with: Any, required: int, changes: dict[str, Any]) -> None:
    options = {**changes, "aggregator": Aggregator(changes.get("aggregator", "mean"))}

    assert updates_required(job_with(**options)) == required


DECISIONS = {
    "enough the first time": (NextAct.AGGREGATE, 3, 1),
    "more than enough": (NextAct.AGGREGATE, 6, 1),
    "enough the second time": (NextAct.AGGREGATE, 3, 2),
    "one too few is asked once more": (NextAct.REPEAT, 2, 1),
    "nobody at all is asked once more": (NextAct.REPEAT, 0, 1),
    "one too few again pauses": (NextAct.PAUSE, 2, 2),
    "nobody again pauses": (NextAct.PAUSE, 0, 2),
    "a third attempt does not come to be": (NextAct.PAUSE, 2, 3),
}


@pytest.mark.parametrize(("act", "admitted", "attempt"), DECISIONS.values(), ids=DECISIONS)
def test_what_follows_from_the_answers(job_with: Any, act: NextAct, admitted: int, attempt: int) -> None:
    job = job_with(min_clients=3)

    assert decide(job, admitted=admitted, refused={}, attempt=attempt).act is act


def test_too_few_updates_are_never_met_with_a_weaker_aggregator(job_with: Any) -> None:
    job = job_with(aggregator=Aggregator.KRUM, num_byzantine=1)

    acts = {decide(job, admitted=n, refused={}, attempt=a).act for n in range(5) for a in (1, 2)}

    assert NextAct.AGGREGATE not in acts
    assert decide(job, admitted=5, refused={}, attempt=1).act is NextAct.AGGREGATE


def test_a_pause_says_who_was_refused_and_why_and_what_was_missing(job_with: Any) -> None:
    refused = {"site-b": "budget_exceeded", "site-a": "no_reply"}

    why = decide(job_with(min_clients=3), admitted=1, refused=refused, attempt=2).why

    assert "1 updates admitted, 3 needed" in why
    assert "site-a: no_reply, site-b: budget_exceeded" in why


def test_silence_of_all_is_named_as_such(job_with: Any) -> None:
    assert "no site answered" in decide(job_with(), admitted=0, refused={}, attempt=1).why
