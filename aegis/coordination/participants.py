"""Who is registered, and who of them can be asked in a turn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from aegis.coordination.liveness import SiteHealth
from aegis.coordination.quarantine import QuarantineRecord, is_quarantined
from coreason_enclave.errors import Reason

__all__ = ["Eligibility", "Participant", "select_eligible", "sites_to_invite"]


@dataclass(frozen=True)
class Participant:
    """A registered site: its name, its Ed25519 key (hex), and the Flower node that carries its messages."""

    site_id: str
    public_key: str
    node_id: int


@dataclass(frozen=True)
class Eligibility:
    """Who can be asked in a turn, sorted, and the reason code of everybody else."""

    eligible: tuple[str, ...]
    left_out: Mapping[str, str]


def sites_to_invite(
    sites: Iterable[str],
    *,
    enrolled: Collection[str],
    revoked: Collection[str],
    quarantine: Mapping[str, QuarantineRecord],
    turn: int,
    health: Mapping[str, SiteHealth],
) -> tuple[str, ...]:
    """The sites that have not enrolled yet and are neither revoked nor sitting out, sorted."""
    return tuple(
        site
        for site in sorted(set(sites) - set(enrolled) - set(revoked))
        if not is_quarantined(quarantine.get(site), turn, _activations(health, site))
    )


def select_eligible(
    sites: Iterable[str],
    *,
    enrolled: Collection[str],
    declined: Mapping[str, str],
    revoked: Collection[str],
    quarantine: Mapping[str, QuarantineRecord],
    turn: int,
    health: Mapping[str, SiteHealth],
) -> Eligibility:
    """Sort everybody registered into those who can be asked and those who cannot, by the gravest reason.

    Args:
        declined: why a site that was invited in this turn did not enrol.
        turn: the one that begins.
    """

    def reason(site: str) -> str | None:
        if site in revoked:
            return Reason.REVOKED.value
        if is_quarantined(quarantine.get(site), turn, _activations(health, site)):
            return declined.get(site, Reason.QUARANTINED.value)  # silent just now: that is the news
        return None if site in enrolled else declined.get(site, Reason.NO_REPLY.value)

    verdicts = {site: reason(site) for site in sorted(set(sites))}
    return Eligibility(
        tuple(site for site, verdict in verdicts.items() if verdict is None),
        {site: verdict for site, verdict in verdicts.items() if verdict is not None},
    )


def _activations(health: Mapping[str, SiteHealth], site: str) -> int:
    return health[site].activations if site in health else 0
