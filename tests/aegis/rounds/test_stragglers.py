"""A site that is always late keeps nobody waiting, is set aside by rule, and comes back when it is quick again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aegis.runtimes.in_process import initial_model
from coreason_enclave.wire.updates import SealedMessage
from tests.support.studies import Federation, MakeStudy, Refuses, Study, a_job, where

DEADLINE_S = 600.0
LONG_S = DEADLINE_S / 4
"""Longer than a whole run takes here, and far less than one round that waits for its deadline."""


class Late(Refuses):
    """Enrols and proves itself, and then holds each order until the test is over; the first few only, if ``times``."""

    def __init__(self, site: Any, until: threading.Event, *, times: int = 1 << 30) -> None:
        super().__init__(site.session, times=times)
        self.until = until

    def run(self, message: SealedMessage) -> SealedMessage:
        if self.times > 0:
            self.times -= 1
            self.until.wait(2 * DEADLINE_S)
        answer: SealedMessage = self.session.run(message)
        return answer


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def seconds_of(run: Study, job: Any, adapt: Any, released: threading.Event) -> float:
    """How long the run took. Held sites are released before the process's sites are closed."""
    started = time.monotonic()
    with run.opened(adapt) as opened, run.coordinator(job, opened) as coordinator:
        coordinator.run(opened.grid, initial_model(job))
        took = time.monotonic() - started
        released.set()
    return took


def outcome(run: Study, site: str) -> list[str]:
    return [record.refused.get(site, "admitted") for record in run.history()]


def test_a_site_that_never_answers_does_not_hold_a_round_until_its_deadline(
    study: MakeStudy, federation: Federation, released: threading.Event
) -> None:
    run = study(4)
    job = a_job(federation, rounds=2, local_steps=1, round_deadline_s=DEADLINE_S, straggler_grace_s=0.2)
    took = seconds_of(run, job, where(["clinic-2"], lambda site: Late(site, released)), released)
    assert took < LONG_S
    assert outcome(run, "clinic-2") == ["no_reply", "quarantined"]


def test_a_chronic_straggler_is_asked_less_and_less_and_pays_only_when_asked(
    study: MakeStudy, federation: Federation, released: threading.Event
) -> None:
    run = study(4)
    job = a_job(federation, rounds=6, local_steps=1, round_deadline_s=DEADLINE_S, straggler_grace_s=0.1)
    seconds_of(run, job, where(["clinic-2"], lambda site: Late(site, released)), released)
    asked = [number for number, what in enumerate(outcome(run, "clinic-2"), start=1) if what == "no_reply"]
    assert asked == [1, 3, 6]
    assert set(outcome(run, "clinic-2")) == {"no_reply", "quarantined"}


def test_a_straggler_is_waited_for_where_its_update_is_needed(
    study: MakeStudy, federation: Federation, released: threading.Event
) -> None:
    run = study(3)
    job = a_job(federation, rounds=1, local_steps=1, round_deadline_s=DEADLINE_S, straggler_grace_s=0.0)
    threading.Timer(1.0, released.set).start()
    seconds_of(run, job, where(["clinic-2"], lambda site: Late(site, released, times=1)), released)
    assert outcome(run, "clinic-2") == ["admitted"]
