"""One attempt at a round: sends orders, admits or refuses each update on arrival, and saves it before the next.

- A site without a current attestation is challenged first. After attesting, it gets its order without waiting for other
  sites.
- A site that has lost its keys since reports the loss and is challenged again.
- Admitted updates are on disk together with the state that names them. A killed coordinator therefore neither asks
  those sites again nor loses updates that cost privacy.
- Restored updates pass the same checks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aegis.coordination import Admission, Admitted, RoundRequest, issue_order, updates_required
from aegis.errors import LedgerForked, RunFolderError, UpdateRefused
from aegis.rounds.attestation_handshake import Attested
from aegis.rounds.context import RunContext
from aegis.rounds.dispatcher import Closing, Dispatcher, Reply, ReplyKind
from aegis.rounds.server_step import BaseModels
from aegis.rounds.transport import DeliveryFailure, InboundMessage, OutboundMessage, SiteRefusal
from aegis.stores import AdmittedEnvelope
from coreason_enclave.attestation import CHALLENGE_S
from coreason_enclave.crypto import seal, sha256_hex
from coreason_enclave.errors import AttestationError, EnvelopeError, Reason
from coreason_enclave.system import CLOCK_SKEW_S
from coreason_enclave.wire import (
    ATTESTATION_REQUEST_TYPE,
    ORDER_TYPE,
    LogSeen,
    RequestKind,
    SealedMessage,
    encode_roll_call,
)

_MAX_CHALLENGES = 8
"""Largest number of challenges to one site in one attempt: a site may restart, or sleep through a challenge."""

_CANNOT_PROVE = frozenset(
    {Reason.ATTESTATION_UNAVAILABLE, Reason.ATTESTATION_INVALID, Reason.ATTESTATION_UNACCEPTABLE, Reason.INTERNAL}
)
_ASK_AGAIN = frozenset({Reason.ATTESTATION_REQUIRED, Reason.EXPIRED})
_OURS = Reason.ATTESTATION_UNAVAILABLE
"""Reason why this host could not judge an answer: a vendor's service, or an endorsement of its own. No site's fault."""
_ASK_FIRST = frozenset({Reason.ATTESTATION_REQUIRED, Reason.LOG_UNPROVEN})
"""Refusals of an order that a new attestation resolves: the site lost its keys, or saw more of the log than assumed."""


@dataclass
class _Batch:
    """The changes from one batch of replies."""

    received: dict[str, AdmittedEnvelope] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    strikes: dict[str, str] = field(default_factory=dict)


class RoundAttempt:
    """The open attempt at the open round: its base model, admitted updates and refusals (reason codes) so far."""

    def __init__(self, of: RunContext) -> None:
        self._of, self._journal = of, of.journal
        state = of.journal.state
        self._models = BaseModels(of)
        self.base = self._models.arrays
        self._roll_call = encode_roll_call({site: text.encode() for site, text in of.enrolments().items()})
        self._questions = self._create_requests()
        self._challenged: dict[str, int] = {}
        self._next: list[OutboundMessage] = []
        self.admitted: dict[str, Admitted] = {}
        self.refused: dict[str, str] = dict(state.refused)

    def run(self, dispatcher: Dispatcher) -> None:
        """Send a request to every unsettled site, and receive replies until the round closes: see :meth:`_closing`."""
        self.restore()
        self._drop_the_unreachable()
        first = [self._order(site) or self._challenge(site) for site in self._pending_sites()]
        for batch in dispatcher.send(first, self._of.job.round_deadline_s, self._closing()):
            self.receive(batch)
            for outbound in self._following():
                dispatcher.follow_up(outbound)

    def attest(self, dispatcher: Dispatcher) -> None:
        """Challenge every site without a current attestation; send no order yet."""
        unproven = [site for site in self._pending_sites() if not self._proven(site)]
        challenges = [self._challenge(site) for site in unproven]
        for batch in dispatcher.send(challenges, self._of.job.round_deadline_s, self._closing(attested=True)):
            self.receive(batch)
            for outbound in self._following():
                if outbound.request_kind is RequestKind.ATTEST:
                    dispatcher.follow_up(outbound)
                else:  # an order; it is made again when orders are sent
                    self._of.witnesses.withdraw(outbound.site)

    def restore(self) -> None:
        """Admit again the updates admitted before a crash. A site whose update no longer passes is asked again.

        Raises:
            RunFolderError: a stored update is missing or damaged, which no crash can cause.
        """
        received = self._journal.state.received
        for site, kept in received.items():
            if site not in self._of.sites.registered or self._of.sites.is_revoked(site):
                continue
            try:
                message = self._journal.store.load_update(kept.envelope)
                admission = self._admission(site, decrypt_update=lambda kept: kept.arrays)  # stored decrypted
                admitted = self._agreeing(site, admission.admit(message, now=kept.admitted_at))
                self._accept(site, admitted, kept.envelope)
            except (LedgerForked, UpdateRefused) as error:
                if isinstance(error, UpdateRefused) and error.reason is Reason.WRONG_DIGEST:
                    raise RunFolderError(
                        f"the stored update of {site} is damaged ({error}): restore the run folder or start a new run"
                    ) from error
                self._journal.log("admit", "lost", {"site": site, "message": str(error)})
        self._journal.save(received={site: kept for site, kept in received.items() if site in self.admitted})

    def outbound_messages(self) -> list[OutboundMessage]:
        """Return the orders for attested sites that are neither admitted nor refused yet."""
        orders = [self._order(site) for site in self._pending_sites()]
        return [outbound for outbound in orders if outbound is not None]

    def receive_all(self, deliveries: Iterable[InboundMessage]) -> None:
        """Process replies that a caller collected, matched by sender node. A site without a reply counts as silent."""
        site_by_node = {self._of.sites.registered[site].node_id: site for site in self._pending_sites()}
        waiting, replies = dict(site_by_node), list[Reply]()
        for inbound in deliveries:
            if isinstance(inbound.content, DeliveryFailure):
                continue
            site = site_by_node.get(inbound.node_id)
            first = waiting.pop(inbound.node_id, None) is not None
            kind = ReplyKind.UNSOLICITED if site is None else ReplyKind.FIRST if first else ReplyKind.DUPLICATE
            replies.append(Reply(kind, site or "", inbound.node_id, inbound.content))
        silent = [Reply(ReplyKind.MISSING, site, node, reason=Reason.NO_REPLY) for node, site in waiting.items()]
        self.receive([*replies, *silent])
        self._leave_unproven([outbound.site for outbound in self._following()])

    def receive(self, batch: Iterable[Reply]) -> None:
        """Process a batch of replies; durable on return."""
        changes = _Batch()
        for reply in batch:
            self._handle_reply(reply, changes)
        state = self._journal.state
        self.refused.update(changes.refused)
        recorded = self._journal.struck(changes.strikes, self._of.sites.activations()) if changes.strikes else {}
        self._journal.save(
            received={**state.received, **changes.received}, refused={**state.refused, **changes.refused}, **recorded
        )
        for site, kept in changes.received.items():
            self._accept(site, self.admitted[site], kept.envelope)

    def _handle_reply(self, reply: Reply, changes: _Batch) -> None:
        match reply.kind:
            case ReplyKind.FIRST:
                self._handle_first(reply, changes)
            case ReplyKind.DUPLICATE:
                self._handle_duplicate(reply, changes)
            case ReplyKind.MISSING:
                self._refuse(reply.site, reply.reason or Reason.NO_REPLY, "", changes, reply.reason is Reason.NO_REPLY)
            case ReplyKind.LATE:
                self._of.mark_late(reply.site)
            case ReplyKind.UNSOLICITED:
                self._of.log_unsolicited(reply.node_id)

    def _handle_first(self, reply: Reply, changes: _Batch) -> None:
        """Check a first reply and admit or refuse it.

        A site's own refusal costs no strike, unless the site cannot attest. Other faults of the site do.
        """
        site, content = reply.site, reply.content
        if self._of.sites.is_revoked(site):
            self._refuse(site, Reason.REVOKED, f"{site} is revoked", changes, strike=False)
        elif isinstance(content, SiteRefusal):
            self._declined(site, content.reason, reply.request_kind, changes)
        elif reply.request_kind is RequestKind.ATTEST and isinstance(content, SealedMessage):
            self._prove(site, content, changes)
        elif not isinstance(content, SealedMessage):
            reason = content.reason if isinstance(content, EnvelopeError) else Reason.MALFORMED
            self._refuse(site, reason, f"the reply of {site} is refused: {content}", changes)
        else:
            self._admit(site, content, changes)

    def _declined(self, site: str, reason: Reason, request_kind: RequestKind | None, changes: _Batch) -> None:
        """Challenge a site again if it has lost its keys or slept through a challenge; otherwise record its refusal.

        Only a site that cannot attest gets a strike.
        """
        attesting = request_kind is RequestKind.ATTEST
        expected = reason in (_ASK_AGAIN if attesting else _ASK_FIRST)
        if expected and self._challenge_again(site):
            return
        unable = reason in _CANNOT_PROVE if attesting else reason is Reason.ATTESTATION_UNAVAILABLE
        if reason in _CANNOT_PROVE:
            self._of.handshake.forget(site)  # the earlier mutual attestation no longer holds
        message = "refused to attest" if attesting else "refused the order"
        self._refuse(site, reason, f"{site} {message}", changes, strike=unable)

    def _prove(self, site: str, message: SealedMessage, changes: _Batch) -> None:
        """Appraise a site's attestation, then queue the site's order or refuse the site."""
        try:
            attested = self._of.handshake.receive(site, self._of.sites.registered[site].public_key, message)
        except UpdateRefused as refusal:
            if refusal.reason is Reason.ATTESTATION_REQUIRED and self._challenge_again(site):
                return
            self._refuse(site, refusal.reason, str(refusal), changes, strike=refusal.reason is not _OURS)
        except AttestationError as error:
            self._refuse(site, error.reason, f"this host cannot attest: {error}", changes, strike=False)
        else:
            self._log_attested(attested)
            self._record_seen(site, attested.log_seen)
            order = self._order(site)
            if order is not None:
                self._next.append(order)

    def _leave_unproven(self, sites: Iterable[str]) -> None:
        """Refuse sites that must attest again when the caller cannot send further requests. No strikes."""
        changes = _Batch()
        for site in sites:
            message = f"{site} has to attest again"
            self._refuse(site, Reason.ATTESTATION_REQUIRED, message, changes, strike=False)
        self._save_refused(changes)

    def _challenge_again(self, site: str) -> bool:
        self._of.handshake.forget(site)
        if self._challenged.get(site, 0) >= _MAX_CHALLENGES:
            return False
        self._next.append(self._challenge(site))
        return True

    def _admit(self, site: str, message: SealedMessage, changes: _Batch) -> None:
        now = self._of.clock()
        try:
            admitted = self._agreeing(site, self._admission(site).admit(message, now=now))
            self._of.heads.require_no_fork(site, admitted.statement.signed_head)
            self.admitted[site] = admitted
        except (UpdateRefused, LedgerForked) as refusal:
            self._refuse(site, refusal.reason, str(refusal), changes, strike=refusal.reason is not _OURS)
        else:
            kept = SealedMessage(message.envelope, self.admitted[site].payload)
            changes.received[site] = AdmittedEnvelope(
                envelope=self._journal.store.save_update(kept), admitted_at=int(now)
            )

    def _agreeing(self, site: str, admitted: Admitted) -> Admitted:
        """Record the log checkpoint that an update states; refuse the update if this log never had that checkpoint.

        The statement is kept with the update, so a false statement would accuse the log.
        """
        if not self._of.witnesses.record_seen(site, seen := admitted.statement.log_seen):
            message = f"{site} states a checkpoint at line {seen.size} of another log: its update contradicts this log"
            raise UpdateRefused(site, Reason.LOG_FORKED, message)
        return admitted

    def _record_seen(self, site: str, seen: LogSeen | None) -> None:
        """Record the log checkpoint that a site states in its attestation; log a refusal if this log never had it.

        Such a site refuses its order: this log was lost or rewritten.
        """
        if not self._of.witnesses.record_seen(site, seen) and seen is not None:
            message = "the site received another, or a longer, log of this run: restore the newest copy of audit.jsonl"
            self._journal.refuse("witness", site, Reason.LOG_FORKED, message, size=seen.size, root=seen.root)

    def _handle_duplicate(self, reply: Reply, changes: _Batch) -> None:
        """Handle a further answer to one order: the first answer decided.

        A refusal or a repeat of the admitted update changes nothing. Any other answer after an admitted update costs a
        strike, be it a replay or a change of mind.
        """
        site, admitted = reply.site, self.admitted.get(reply.site)
        if reply.request_kind is RequestKind.ATTEST or admitted is None or isinstance(reply.content, SiteRefusal):
            return  # the first answer decided
        try:
            if isinstance(reply.content, SealedMessage):
                again = self._admission(site).admit(reply.content, now=self._of.clock())
                if again.update.digest == admitted.update.digest:
                    return
        except UpdateRefused:
            pass
        message = f"{site} sent two different replies to one order"
        self._journal.refuse("admit", site, Reason.REPLAYED, message)
        changes.strikes[site] = Reason.REPLAYED

    def _refuse(self, site: str, reason: Reason, message: str, changes: _Batch, strike: bool = True) -> None:
        changes.refused[site] = reason.value
        if strike:
            changes.strikes[site] = reason.value
        self._journal.refuse("admit", site, reason, message)

    def _accept(self, site: str, accepted: Admitted, envelope: str) -> None:
        """Keep the site's ledger head for its next order, and log the admitted update."""
        self.admitted[site] = accepted
        statement = accepted.statement
        newest = self._of.heads.put(site, statement.signed_head)
        details = {
            "site": site,
            "round": statement.round_number,
            "update": statement.update_digest,
            "envelope": envelope,
            "event": statement.event,
            "provenance": accepted.update.provenance.value,
            "noise_source": statement.noise_source,
            "unit": statement.unit,
            "delta": statement.delta,
            "ledger_head": statement.ledger_head.model_dump(),
            "content_changed": statement.content_changed,
            **({} if newest else {"ledger_set_back": True}),
        }
        self._journal.log("admit", "accepted", details)

    def _drop_the_unreachable(self) -> None:
        """Refuse sites that were revoked or left the registry while their round was open. No strikes."""
        changes = _Batch()
        for site in self._journal.state.nonces.keys() - self.admitted.keys() - self.refused.keys():
            if self._of.sites.is_revoked(site):
                self._refuse(site, Reason.REVOKED, f"{site} is revoked", changes, strike=False)
            elif site not in self._of.sites.registered:
                self._refuse(site, Reason.NO_REPLY, f"{site} is no longer registered", changes, strike=False)
        self._save_refused(changes)

    def _save_refused(self, changes: _Batch) -> None:
        self.refused.update(changes.refused)
        self._journal.save(refused={**self._journal.state.refused, **changes.refused})

    def _admission(self, site: str, decrypt_update: Callable[[SealedMessage], bytes] | None = None) -> Admission:
        handshake = self._of.handshake
        return Admission(
            self._questions[site],
            self._of.sites.registered[site].public_key,
            self._models.layout,
            handshake.appraiser,
            handshake.decrypt_update if decrypt_update is None else decrypt_update,
        )

    def _create_requests(self) -> dict[str, RoundRequest]:
        state, job = self._journal.state, self._of.job
        return {
            site: RoundRequest(job, state.open_round, site, nonce, self._models.digest(site))
            for site, nonce in sorted(state.nonces.items())
        }

    def _closing(self, *, attested: bool = False) -> Closing | None:
        """Return the early-closing rule: enough admitted updates or, with ``attested``, enough attested sites.

        Return None under client-level privacy. Such a round lasts until its deadline, because an early end would reveal
        how many sites were drawn.
        """
        job = self._of.job
        if self._of.client_privacy is not None:
            return None

        def enough() -> bool:
            proven = [site for site in self._pending_sites() if self._proven(site)] if attested else []
            return len(self.admitted) + len(proven) >= updates_required(job)

        return Closing(enough, job.straggler_grace_s)

    def _proven(self, site: str) -> bool:
        return self._attested(site) is not None

    def _pending_sites(self) -> list[str]:
        settled = self.admitted.keys() | self.refused.keys()
        return [site for site in self._questions if site not in settled]

    def _following(self) -> list[OutboundMessage]:
        following, self._next = self._next, []
        return following

    def _order(self, site: str) -> OutboundMessage | None:
        """Return the order for an attested site, or None if the site must attest first."""
        attested = self._attested(site)
        if attested is None:
            return None
        log, log_proof = self._of.witnesses.show(site)
        order = issue_order(
            self._questions[site],
            profile=self._of.profile,
            roll_call_digest=sha256_hex(self._roll_call),
            last_head=self._of.heads.get(site),
            coordinator=attested.identity,
            attestation=attested.result,
            log=log,
            log_proof=log_proof,
            now=self._of.clock(),
        )
        envelope = seal(ORDER_TYPE, order.canonical(), self._of.signer)
        model = self._of.handshake.release(attested, self._models.encoded(site), envelope)
        message = SealedMessage(envelope, model, self._roll_call)
        return self._outbound(site, RequestKind.TRAIN, message, self._of.job.round_deadline_s)

    def _attested(self, site: str) -> Attested | None:
        """Return the site's attestation, or None if the site must attest again.

        A site whose last answer was lost must attest again: the lost answer would have stated what the site saw of the
        log.
        """
        attested = self._of.handshake.attested(site, self._of.job)
        return attested if self._of.witnesses.is_known(site) else None

    def _challenge(self, site: str) -> OutboundMessage:
        """Return a request to ``site`` to attest over a new challenge."""
        self._challenged[site] = self._challenged.get(site, 0) + 1
        request = self._of.handshake.request(site, self._of.job)
        message = SealedMessage(seal(ATTESTATION_REQUEST_TYPE, request.canonical(), self._of.signer))
        return self._outbound(site, RequestKind.ATTEST, message, CHALLENGE_S)

    def _outbound(
        self, site: str, request_kind: RequestKind, message: SealedMessage, within_s: float
    ) -> OutboundMessage:
        return OutboundMessage(
            site=site,
            node_id=self._of.sites.registered[site].node_id,
            request_kind=request_kind,
            message=message,
            group=str(self._journal.state.open_round),
            ttl_s=within_s + CLOCK_SKEW_S,
        )

    def _log_attested(self, attested: Attested) -> None:
        report = attested.report
        entry = {
            "site": report.subject,
            "provenance": report.provenance.value,
            "kind": report.kind,
            "measurement": report.measurement,
            "platform_ids": list(report.platform_ids),
            "kem_key": report.kem_key,
            "nonce": report.nonce,
            "expires_at": report.expires_at,
            "not_checked": list(report.not_checked),
            "result": sha256_hex(attested.result.encode()),
        }
        self._journal.log("attest", "accepted", entry)
