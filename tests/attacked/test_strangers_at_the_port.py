"""Anybody who reaches the port, without a certificate, opens as many connections as a laptop can: nobody notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attacked.rounds import LEAST, Attacked, running, shares

FOR_S = 12.0
STRANGERS = [("plain", 1500, False), ("half-hello", 1500, False), ("whole-hello", 1500, False)]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(500)
def test_honest_sites_keep_their_rounds_while_strangers_hold_the_port(
    made: Attacked, record_property: Callable[[str, object], None]
) -> None:
    with running(made):
        before = made.memory_mb("gateway")
        measured = shares(made, STRANGERS, FOR_S)
        grown = made.memory_mb("gateway") - before
        log = made.deployment.host.logs / "gateway.log"
        written, text = log.stat().st_size, log.read_text()
    record_property("share of undisturbed rounds", measured)
    record_property("gateway's growth in MB", grown)
    record_property("gateway's log in bytes", written)

    assert min(measured.values()) >= LEAST, measured
    assert grown < 60
    assert written < 1 << 20
    assert "Traceback" not in text
