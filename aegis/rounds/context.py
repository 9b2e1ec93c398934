"""What every turn of a run shares: the job, the coordinator's key, the sites as they are now, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from aegis.client_privacy import ClientPrivacy
from aegis.coordination.liveness import Liveness, SiteHealth
from aegis.coordination.participants import Participant
from aegis.coordination.quarantine import mark_late
from aegis.rounds.attestation_handshake import CoordinatorHandshake
from aegis.rounds.journal import Journal
from aegis.rounds.witnesses import Witnesses
from aegis.stores.heads import HeadStore
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import Reason
from coreason_enclave.schemas import FederationJob

__all__ = ["ParticipantView", "RunContext"]


class ParticipantView:
    """The registered participants, as of now.

    Args:
        revoked: the site ids that nothing is asked of and nothing is taken from, as of the call.
        liveness: signs of life.
    """

    def __init__(
        self, participants: Sequence[Participant], *, revoked: Callable[[], Collection[str]], liveness: Liveness
    ) -> None:
        self.registered: Mapping[str, Participant] = {each.site_id: each for each in participants}
        self.revoked, self.liveness = revoked, liveness

    def health(self) -> Mapping[str, SiteHealth]:
        """Signs of life of the registered sites."""
        return {site: seen for site, seen in self.liveness.health().items() if site in self.registered}

    def activations(self) -> dict[str, int]:
        """How often each site's node has joined, as far as is known."""
        return {site: seen.activations for site, seen in self.health().items()}

    def is_revoked(self, site: str) -> bool:
        """Whether nothing is taken from this site now."""
        return site in self.revoked()


@dataclass(frozen=True)
class RunContext:
    """One job's run in this process. ``clock``: Unix seconds. ``client_privacy``: there if the job asks for it.

    ``witnesses``: what the sites are shown of the run's log.
    """

    job: FederationJob
    signer: Signer
    handshake: CoordinatorHandshake
    sites: ParticipantView
    heads: HeadStore
    journal: Journal
    witnesses: Witnesses
    clock: Callable[[], float]
    client_privacy: ClientPrivacy | None = None

    def enrolments(self) -> dict[str, str]:
        """The enrolment envelopes that count: of sites that are registered and not revoked."""
        revoked = self.sites.revoked()
        return {
            site: envelope
            for site, envelope in self.journal.state.enrolments.items()
            if site in self.sites.registered and site not in revoked
        }

    def mark_late(self, site: str) -> None:
        """An answer to what was closed without it: refused and noted. Its silence was counted already."""
        self.journal.refuse("admit", site, Reason.LATE, f"{site} answered after its round was closed")
        quarantine = self.journal.state.quarantine
        if site in quarantine:
            self.journal.save(quarantine={**quarantine, site: mark_late(quarantine[site])})

    def log_unsolicited(self, node_id: int) -> None:
        """Something came of a node that was not asked for it: nobody's offence, as nobody is known to have sent it."""
        self.journal.log("admit", "refused", {"node": str(node_id)}, Reason.UNKNOWN_SITE)
