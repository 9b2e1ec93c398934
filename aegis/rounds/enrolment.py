"""Invites sites to a job and collects their enrolments, which form the roll-call that every site checks.

Enrolments are saved on arrival, so a resumed run does not invite an enrolled site again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from aegis.coordination import admit_enrolment, issue_invitations, sites_to_invite, updates_required
from aegis.errors import UpdateRefused
from aegis.rounds.context import RunContext
from aegis.rounds.dispatcher import Closing, Dispatcher, Reply, ReplyKind
from aegis.rounds.transport import OutboundMessage, SiteRefusal
from coreason_enclave.crypto import seal
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.system import CLOCK_SKEW_S
from coreason_enclave.wire import INVITATION_TYPE, JobInvitation, RequestKind, SealedMessage

INVITATION_S = 60.0
"""Seconds that a site may take to enrol, or a round's deadline if shorter. The site only reads and signs."""


def invite(run: RunContext, dispatcher: Dispatcher) -> dict[str, str]:
    """Invite the sites that have not enrolled; return the reason code of each invited site that did not enrol."""
    state, within_s = run.journal.state, min(INVITATION_S, run.job.round_deadline_s)
    invited = sites_to_invite(
        run.sites.registered,
        enrolled=state.enrolments,
        revoked=run.sites.revoked(),
        quarantine=state.quarantine,
        rounds_ended=state.rounds_ended,
        health=run.sites.health(),
    )
    if not invited:
        return {}
    enrolling = _Enrolling(run)
    invitations = issue_invitations(
        run.job,
        invited,
        profile=run.profile,
        nonce=secrets.token_hex(32),
        within_s=within_s,
        now=run.clock(),
    )
    closing = Closing(lambda: len(run.enrolments()) >= updates_required(run.job), run.job.straggler_grace_s)
    for batch in dispatcher.send([_outbound(run, each, within_s) for each in invitations.values()], within_s, closing):
        enrolling.receive(batch)
    return enrolling.declined


def _outbound(run: RunContext, invitation: JobInvitation, within_s: float) -> OutboundMessage:
    return OutboundMessage(
        site=invitation.site_id,
        node_id=run.sites.registered[invitation.site_id].node_id,
        request_kind=RequestKind.ENROL,
        message=SealedMessage(seal(INVITATION_TYPE, invitation.canonical(), run.signer)),
        group="enrolment",
        ttl_s=within_s + CLOCK_SKEW_S,
    )


def drop_other_keys(run: RunContext) -> None:
    """Drop enrolments under a replaced key. A site registered again under another key must enrol with the new key."""

    def still_valid(site: str, envelope: str) -> bool:
        if site not in run.sites.registered:
            return True  # the site may come back; until then no roll-call lists it
        try:
            key = run.sites.registered[site].public_key
            admit_enrolment(SealedMessage(envelope.encode()), run.job, site, key, profile=run.profile)
        except UpdateRefused:
            return False
        return True

    enrolments = run.journal.state.enrolments
    run.journal.save(enrolments={site: text for site, text in enrolments.items() if still_valid(site, text)})


class _Enrolling:
    """Processes the replies to one set of invitations."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self.declined: dict[str, str] = {}

    def receive(self, batch: Iterable[Reply]) -> None:
        """Save enrolments and strikes from a batch of replies; durable on return."""
        enrolled: dict[str, str] = {}
        strikes: dict[str, str] = {}
        for reply in batch:
            self._handle_reply(reply, enrolled, strikes)
        journal = self._run.journal
        activations = self._run.sites.activations()
        quarantine = journal.struck(strikes, activations)["quarantine"] if strikes else journal.state.quarantine
        journal.save(enrolments={**journal.state.enrolments, **enrolled}, quarantine=quarantine)
        for site in enrolled:
            journal.log("enrol", "enrolled", {"site": site})

    def _handle_reply(self, reply: Reply, enrolled: dict[str, str], strikes: dict[str, str]) -> None:
        match reply.kind:
            case ReplyKind.FIRST | ReplyKind.MISSING:
                self._answer(reply, enrolled, strikes)
            case ReplyKind.LATE:
                self._run.mark_late(reply.site)
            case ReplyKind.UNSOLICITED:
                self._run.log_unsolicited(reply.node_id)

    def _answer(self, reply: Reply, enrolled: dict[str, str], strikes: dict[str, str]) -> None:
        site, content = reply.site, reply.content
        if isinstance(content, SealedMessage):
            try:
                key = self._run.sites.registered[site].public_key
                admit_enrolment(content, self._run.job, site, key, profile=self._run.profile)
            except UpdateRefused as refusal:
                self._decline(site, refusal.reason, str(refusal))
                strikes[site] = refusal.reason
            else:
                enrolled[site] = content.envelope.decode()
        elif isinstance(content, SiteRefusal):
            self._decline(site, content.reason, f"{site} refused the invitation")
        else:
            reason = content.reason if isinstance(content, EnvelopeError) else reply.reason or Reason.NO_REPLY
            self._decline(site, reason, "" if content is None else str(content))
            if reason is not Reason.TRANSPORT:
                strikes[site] = reason

    def _decline(self, site: str, reason: Reason, message: str) -> None:
        self.declined[site] = reason.value
        self._run.journal.refuse("enrol", site, reason, message)
