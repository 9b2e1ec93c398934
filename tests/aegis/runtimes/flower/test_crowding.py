"""A run that pauses while the gateway was full says so, instead of blaming the sites that could not get in."""

from __future__ import annotations

from typing import Any, cast

import pytest

from aegis.errors import BudgetRefused, GatewayUnreachable, RunPaused
from aegis.gateway.control import GatewayControl
from aegis.gateway.status import StatusReport
from aegis.http.load import GatewayLoad
from aegis.runtimes.flower.crowding import naming_a_full_gateway

NOW = 1.8e9


class Control:
    """Answers with one report, or not at all."""

    def __init__(self, crowded_at: float | None, answers: bool = True) -> None:
        load = GatewayLoad(connections=512, max_connections=512, by_site={"site-b": 500}, crowded_at=crowded_at)
        self._report, self._answers = StatusReport(sites={}, gateway=load), answers

    def report(self) -> StatusReport:
        if not self._answers:
            raise GatewayUnreachable("gone")
        return self._report


def said(control: Control, error: type[RunPaused] = RunPaused, lasting_s: float = 60.0) -> str:
    moments = iter([NOW, NOW + lasting_s])
    with (
        pytest.raises(error) as raised,
        naming_a_full_gateway(cast(GatewayControl, control), clock=lambda: next(moments)),
    ):
        raise error("too few: site-a no_reply")
    return str(raised.value)


def test_a_pause_names_the_full_gateway_and_who_fills_it() -> None:
    words = said(Control(NOW + 30))

    assert words.startswith("too few: site-a no_reply\nthe gateway was full during the round")
    assert "512 of 512 connections (site-b holds 500)" in words


@pytest.mark.parametrize(
    ("control", "options"),
    [
        pytest.param(Control(None), {}, id="it was never full"),
        pytest.param(Control(NOW - 10), {}, id="it was full before the run"),
        pytest.param(Control(NOW + 10), {"lasting_s": 7200.0}, id="it was full hours ago"),
        pytest.param(Control(NOW + 30, answers=False), {}, id="it does not answer"),
        pytest.param(Control(NOW + 30), {"error": BudgetRefused}, id="the sites refused for their budgets"),
    ],
)
def test_a_pause_for_other_reasons_is_told_as_it_is(control: Control, options: dict[str, Any]) -> None:
    assert said(control, **options) == "too few: site-a no_reply"
