"""Strikes are passed on each time, and logged once a minute: a client cannot fill the server's disk."""

from __future__ import annotations

import pytest

from aegis.runtimes.nvflare.violations import Violations


def test_each_offence_is_told_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now, told = [0.0], list[tuple[str, str]]()
    strikes = Violations(clock=lambda: now[0])
    strikes.subscribe(lambda site, why: told.append((site, why)))

    for second in (0.0, 1.0, 59.0, 61.0):
        now[0] = second
        strikes.report("clinic-1", "asks admin:x")

    assert told == [("clinic-1", "asks admin:x")] * 4
    assert [record.getMessage() for record in caplog.records] == ["refused a message of clinic-1: asks admin:x"] * 2


def test_a_client_without_a_name_is_logged_and_told_of_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    strikes = Violations()
    strikes.subscribe(lambda *_: pytest.fail("nobody to tell of"))

    strikes.report(None, "the connection names no cell")

    assert "an unknown client" in caplog.text
