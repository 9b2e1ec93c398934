"""The context of all rounds of a run: the job, the coordinator's key, the current sites, and the stores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from aegis.client_privacy import ClientPrivacy
from aegis.coordination import Liveness, NoLiveness, Participant, SiteHealth, mark_late
from aegis.errors import InvalidJob
from aegis.rounds.attestation_handshake import CoordinatorHandshake
from aegis.rounds.journal import Journal
from aegis.rounds.witnesses import Witnesses
from aegis.stores import FileHeadStore
from coreason_enclave.crypto import Signer
from coreason_enclave.errors import Reason
from coreason_enclave.schemas import FederationJob, Profile


class ParticipantView:
    """The registered participants, with their current revocations and signs of life.

    Args:
        revoked: returns the currently revoked site ids, and is called again at every decision. A revoked site gets no
            requests, and its answers are refused.
        readmitted: sites whose strikes are cleared before the run continues; a person's decision, which is logged.
        liveness: source of signs of life, for sites that can come and go.

    Raises:
        InvalidJob: ``readmitted`` names an unregistered site.
    """

    def __init__(
        self,
        participants: Sequence[Participant],
        *,
        revoked: Callable[[], Collection[str]] = frozenset,
        readmitted: Collection[str] = (),
        liveness: Liveness | None = None,
    ) -> None:
        self.registered: Mapping[str, Participant] = {each.site_id: each for each in participants}
        self.revoked, self.readmitted, self.liveness = revoked, readmitted, liveness or NoLiveness()
        if strangers := sorted(set(readmitted) - set(self.registered)):
            raise InvalidJob(f"{strangers[0]} cannot be readmitted: no participant has that name")

    def health(self) -> Mapping[str, SiteHealth]:
        """Return the signs of life of the registered sites."""
        return {site: seen for site, seen in self.liveness.health().items() if site in self.registered}

    def activations(self) -> dict[str, int]:
        """Return how often each site's node has joined; sites without a known count are left out."""
        return {site: seen.activations for site, seen in self.health().items()}

    def is_revoked(self, site: str) -> bool:
        """Return True if the site is revoked now."""
        return site in self.revoked()


@dataclass(frozen=True)
class RunContext:
    """The context of one job's run in this process.

    Attributes:
        handshake: holds the coordinator's key and clock, too.
        witnesses: the checkpoints that sites saw and will see of the run's log.
        client_privacy: set only if the job asks for client-level privacy.
    """

    job: FederationJob
    handshake: CoordinatorHandshake
    sites: ParticipantView
    heads: FileHeadStore
    journal: Journal
    witnesses: Witnesses
    client_privacy: ClientPrivacy | None = None

    @property
    def signer(self) -> Signer:
        """The coordinator's key."""
        return self.handshake.signer

    @property
    def profile(self) -> Profile:
        """The coordinator's profile, stated in every request."""
        return self.handshake.appraiser.profile

    def clock(self) -> float:
        """Return Unix seconds."""
        return self.handshake.clock()

    def enrolments(self) -> dict[str, str]:
        """Return the enrolment envelopes that count: those of registered sites without revocation."""
        revoked = self.sites.revoked()
        return {
            site: envelope
            for site, envelope in self.journal.state.enrolments.items()
            if site in self.sites.registered and site not in revoked
        }

    def mark_late(self, site: str) -> None:
        """Refuse and log an answer to a closed request.

        The site's silence already cost a strike; the strike's reason becomes lateness.
        """
        self.journal.refuse("admit", site, Reason.LATE, f"{site} replied after its round was closed")
        quarantine = self.journal.state.quarantine
        if site in quarantine:
            self.journal.save(quarantine={**quarantine, site: mark_late(quarantine[site])})

    def log_unsolicited(self, node_id: int) -> None:
        """Log a message from a node that has no open request. No site is penalised: the sender is unknown."""
        self.journal.log("admit", "refused", {"node": str(node_id)}, Reason.UNKNOWN_SITE)
