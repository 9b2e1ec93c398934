"""Registered sites, and the selection of sites that a round can ask."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from aegis.coordination.liveness import SiteHealth
from aegis.coordination.quarantine import QuarantineRecord, is_quarantined
from coreason_enclave.errors import Reason


@dataclass(frozen=True)
class Participant:
    """A registered site: its name, its Ed25519 key (hex), and the Flower node that carries its messages."""

    site_id: str
    public_key: str
    node_id: int


@dataclass(frozen=True)
class Eligibility:
    """The sites that a round can ask, sorted, and the reason code of every other site."""

    eligible: tuple[str, ...]
    left_out: Mapping[str, str]


def sites_to_invite(
    sites: Iterable[str],
    *,
    enrolled: Collection[str],
    revoked: Collection[str],
    quarantine: Mapping[str, QuarantineRecord],
    rounds_ended: int,
    health: Mapping[str, SiteHealth],
) -> tuple[str, ...]:
    """Return the sites, sorted, that have not enrolled and are neither revoked nor quarantined."""
    return tuple(
        site
        for site in sorted(set(sites) - set(enrolled) - set(revoked))
        if not is_quarantined(quarantine.get(site), rounds_ended, _activations(health, site))
    )


def select_eligible(
    sites: Iterable[str],
    *,
    enrolled: Collection[str],
    declined: Mapping[str, str],
    revoked: Collection[str],
    quarantine: Mapping[str, QuarantineRecord],
    rounds_ended: int,
    health: Mapping[str, SiteHealth],
) -> Eligibility:
    """Divide the registered sites into sites to ask and sites left out, each with its gravest reason.

    Args:
        declined: why a site invited in this round did not enrol.
        rounds_ended: the rounds completed or paused before this one.
    """

    def reason(site: str) -> str | None:
        if site in revoked:
            return Reason.REVOKED.value
        if is_quarantined(quarantine.get(site), rounds_ended, _activations(health, site)):
            return declined.get(site, Reason.QUARANTINED.value)  # a reason from this round's invitation is newer
        return None if site in enrolled else declined.get(site, Reason.NO_REPLY.value)

    verdicts = {site: reason(site) for site in sorted(set(sites))}
    return Eligibility(
        tuple(site for site, verdict in verdicts.items() if verdict is None),
        {site: verdict for site, verdict in verdicts.items() if verdict is not None},
    )


def _activations(health: Mapping[str, SiteHealth], site: str) -> int:
    return health[site].activations if site in health else 0
