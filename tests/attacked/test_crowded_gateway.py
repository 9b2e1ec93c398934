"""One registered site fills the gateway with connections of its own: the others do not notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attacked.rounds import LEAST, Attacked, running, shares

FOR_S = 12.0


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_honest_sites_keep_their_rounds_while_one_site_holds_all_the_connections_it_gets(
    made: Attacked, record_property: Callable[[str, object], None]
) -> None:
    with running(made):
        measured = shares(made, [("certificate", 512, True), ("half-head", 512, True)], FOR_S)
        report = made.report()
    record_property("share of undisturbed rounds", measured)

    assert min(measured.values()) >= LEAST, measured
    assert report.gateway.turned_away, "the attack met no limit"
    assert report.gateway.by_site.get("clinic-4", 0) <= 32
    assert max(report.gateway.max_turned_away, key=report.gateway.max_turned_away.__getitem__) == "clinic-4"
