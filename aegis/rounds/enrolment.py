"""Inviting the sites to a job; their enrolments become the roll-call that each of them checks.

Kept as they come, so that a resumed run does not ask an enrolled site again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from aegis.coordination.enrolment_admission import admit_enrolment
from aegis.coordination.orders import GRACE_S, issue_invitations
from aegis.coordination.participants import to_invite
from aegis.coordination.round_decisions import updates_required
from aegis.errors import UpdateRefused
from aegis.rounds.context import Run
from aegis.rounds.dispatcher import Came, Closing, Exchange, Heard
from aegis.rounds.transport import Errand, Parcel, SiteRefused
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire.documents import INVITATION_TYPE, JobInvitation
from coreason_enclave.wire.updates import SealedMessage

__all__ = ["INVITATION_S", "drop_other_keys", "invite"]

INVITATION_S = 60.0
"""How long a site may take to enrol, unless a round's deadline is shorter: it only reads and signs."""


def invite(run: Run, exchange: Exchange) -> dict[str, str]:
    """Invite whoever has not enrolled; return why sites did not enrol, by reason code."""
    state, within_s = run.journal.state, min(INVITATION_S, run.job.round_deadline_s)
    invited = to_invite(
        run.sites.registered,
        enrolled=state.enrolments,
        revoked=run.sites.revoked(),
        conduct=state.conduct,
        turn=state.turn,
        health=run.sites.health(),
    )
    if not invited:
        return {}
    enrolling = _Enrolling(run)
    invitations = issue_invitations(run.job, invited, nonce=secrets.token_hex(32), within_s=within_s, now=run.clock())
    closing = Closing(lambda: len(run.enrolments()) >= updates_required(run.job), run.job.straggler_grace_s)
    for batch in exchange.ask([_parcel(run, each, within_s) for each in invitations.values()], within_s, closing):
        enrolling.hear(batch)
    return enrolling.declined


def _parcel(run: Run, invitation: JobInvitation, within_s: float) -> Parcel:
    return Parcel(
        site=invitation.site_id,
        node_id=run.sites.registered[invitation.site_id].node_id,
        errand=Errand.ENROL,
        message=SealedMessage(seal(INVITATION_TYPE, invitation.canonical(), run.signer)),
        group="enrolment",
        ttl_s=within_s + GRACE_S,
    )


def drop_other_keys(run: Run) -> None:
    """A site that was registered anew under another key has to enrol with that one."""

    def still_valid(site: str, envelope: str) -> bool:
        if site not in run.sites.registered:
            return True  # it may come back; until then it is in no roll-call
        try:
            admit_enrolment(SealedMessage(envelope.encode()), run.job, site, run.sites.registered[site].public_key)
        except UpdateRefused:
            return False
        return True

    enrolments = run.journal.state.enrolments
    run.journal.save(enrolments={site: text for site, text in enrolments.items() if still_valid(site, text)})


class _Enrolling:
    """Takes the answers to one set of invitations."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.declined: dict[str, str] = {}

    def hear(self, batch: Iterable[Heard]) -> None:
        """Keep whoever enrolled; durable when this returns."""
        enrolled: dict[str, str] = {}
        offences: dict[str, str] = {}
        for heard in batch:
            self._hear(heard, enrolled, offences)
        journal = self._run.journal
        activations = self._run.sites.activations()
        conduct = journal.offended(offences, activations)["conduct"] if offences else journal.state.conduct
        journal.save(enrolments={**journal.state.enrolments, **enrolled}, conduct=conduct)
        for site in enrolled:
            journal.log("enrol", "enrolled", {"site": site})

    def _hear(self, heard: Heard, enrolled: dict[str, str], offences: dict[str, str]) -> None:
        match heard.came:
            case Came.FIRST | Came.NEVER:
                self._answer(heard, enrolled, offences)
            case Came.LATE:
                self._run.note_late(heard.site)
            case Came.STRAY:
                self._run.note_stray(heard.node_id)

    def _answer(self, heard: Heard, enrolled: dict[str, str], offences: dict[str, str]) -> None:
        site, content = heard.site, heard.content
        if isinstance(content, SealedMessage):
            try:
                admit_enrolment(content, self._run.job, site, self._run.sites.registered[site].public_key)
            except UpdateRefused as refusal:
                self._decline(site, refusal.reason, str(refusal))
                offences[site] = refusal.reason
            else:
                enrolled[site] = content.envelope.decode()
        elif isinstance(content, SiteRefused):
            self._decline(site, content.reason, f"{site} does not take part")
        else:
            reason = content.reason if isinstance(content, EnvelopeError) else heard.reason or Reason.NO_REPLY
            self._decline(site, reason, "" if content is None else str(content))
            if reason is not Reason.TRANSPORT:
                offences[site] = reason

    def _decline(self, site: str, reason: Reason, message: str) -> None:
        self.declined[site] = reason.value
        self._run.journal.refuse("enrol", site, reason, message)
