"""Who can be asked in a turn, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from aegis.coordination.liveness import SiteHealth
from aegis.coordination.participants import draw_up, to_invite
from aegis.coordination.quarantine import offend

SITES = ("a", "b", "c", "d")
SILENT, FORGED = offend(None, "no_reply", 3, activations=1), offend(None, "malformed", 3, activations=1)

ROWS: dict[str, tuple[dict[str, Any], str | None]] = {
    "who enrolled is asked": ({}, None),
    "who is revoked is not, whatever else is true of it": (
        {"revoked": {"b"}, "conduct": {"b": FORGED}, "declined": {"b": "policy"}},
        "revoked",
    ),
    "who offended sits out": ({"conduct": {"b": FORGED}}, "quarantined"),
    "who offended long ago is asked": ({"conduct": {"b": FORGED}, "turn": 9}, None),
    "who was silent sits out": ({"conduct": {"b": SILENT}}, "quarantined"),
    "who was silent and joined anew is asked": (
        {"conduct": {"b": SILENT}, "health": {"b": SiteHealth(activations=2)}},
        None,
    ),
    "who offended and joined anew sits out all the same": (
        {"conduct": {"b": FORGED}, "health": {"b": SiteHealth(activations=2)}},
        "quarantined",
    ),
    "who declined just now is left out by its own reason": (
        {"enrolled": {"a", "c", "d"}, "declined": {"b": "policy"}},
        "policy",
    ),
    "who was silent when invited is left out as silent": (
        {"enrolled": {"a", "c", "d"}, "declined": {"b": "no_reply"}, "conduct": {"b": offend(None, "no_reply", 4)}},
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
        "conduct": {},
        "turn": 4,
        "health": {},
        **changes,
    }
    roster = draw_up(SITES, **facts)
    assert roster.left_out == ({} if reason is None else {"b": reason})
    assert roster.eligible == (SITES if reason is None else ("a", "c", "d"))


def test_invited_is_who_has_not_enrolled_and_neither_is_revoked_nor_sits_out() -> None:
    facts: dict[str, Any] = {"turn": 4, "health": {}}
    everybody = to_invite(SITES, enrolled=(), revoked=(), conduct={}, **facts)
    some = to_invite(SITES, enrolled={"a"}, revoked={"b"}, conduct={"c": FORGED}, **facts)
    assert everybody == SITES
    assert some == ("d",)
