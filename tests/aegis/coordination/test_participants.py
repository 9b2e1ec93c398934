"""Who can be asked in a round, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from aegis.coordination.liveness import SiteHealth
from aegis.coordination.participants import select_eligible, sites_to_invite
from aegis.coordination.quarantine import record_strike

SITES = ("a", "b", "c", "d")
SILENT, FORGED = record_strike(None, "no_reply", 3, activations=1), record_strike(None, "malformed", 3, activations=1)

ROWS: dict[str, tuple[dict[str, Any], str | None]] = {
    "who enrolled is asked": ({}, None),
    "who is revoked is not, whatever else is true of it": (
        {"revoked": {"b"}, "quarantine": {"b": FORGED}, "declined": {"b": "policy"}},
        "revoked",
    ),
    "who offended sits out": ({"quarantine": {"b": FORGED}}, "quarantined"),
    "who offended long ago is asked": ({"quarantine": {"b": FORGED}, "rounds_ended": 9}, None),
    "who was silent sits out": ({"quarantine": {"b": SILENT}}, "quarantined"),
    "who was silent and joined anew is asked": (
        {"quarantine": {"b": SILENT}, "health": {"b": SiteHealth(activations=2)}},
        None,
    ),
    "who offended and joined anew sits out all the same": (
        {"quarantine": {"b": FORGED}, "health": {"b": SiteHealth(activations=2)}},
        "quarantined",
    ),
    "who declined just now is left out by its own reason": (
        {"enrolled": {"a", "c", "d"}, "declined": {"b": "policy"}},
        "policy",
    ),
    "who was silent when invited is left out as silent": (
        {
            "enrolled": {"a", "c", "d"},
            "declined": {"b": "no_reply"},
            "quarantine": {"b": record_strike(None, "no_reply", 4)},
        },
        "no_reply",
    ),
    "who never enrolled has not replied": ({"enrolled": {"a", "c", "d"}}, "no_reply"),
}


@pytest.mark.parametrize(("changes", "reason"), ROWS.values(), ids=ROWS)
def test_the_roster(changes: dict[str, Any], reason: str | None) -> None:
    facts = {
        "enrolled": set(SITES),
        "declined": {},
        "revoked": set(),
        "quarantine": {},
        "rounds_ended": 4,
        "health": {},
        **changes,
    }
    roster = select_eligible(SITES, **facts)
    assert roster.left_out == ({} if reason is None else {"b": reason})
    assert roster.eligible == (SITES if reason is None else ("a", "c", "d"))


def test_invited_is_who_has_not_enrolled_and_neither_is_revoked_nor_sits_out() -> None:
    facts: dict[str, Any] = {"rounds_ended": 4, "health": {}}
    everybody = sites_to_invite(SITES, enrolled=(), revoked=(), quarantine={}, **facts)
    some = sites_to_invite(SITES, enrolled={"a"}, revoked={"b"}, quarantine={"c": FORGED}, **facts)
    assert everybody == SITES
    assert some == ("d",)
