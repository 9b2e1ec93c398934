"""One attempt at a round: orders out, answers in, each admitted or refused as it arrives and kept before the next.

Whatever was admitted is on disk with the state that names it, so a coordinator that was killed neither asks those
sites again nor loses what they spent privacy on; what it restores passes the same checks once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aegis.coordination.admission import Admission, Admitted
from aegis.coordination.issuing import GRACE_S, issue_orders
from aegis.errors import RunFolderError, UpdateRefused
from aegis.rounds.carrier import Delivery, Errand, Parcel, SiteRefused, Undelivered
from aegis.rounds.exchange import Came, Exchange, Heard
from aegis.rounds.run import Run
from aegis.stores.run_state import KeptUpdate
from coreason_enclave.encoding import sha256_hex
from coreason_enclave.envelope import seal
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.orders import ORDER_TYPE, RoundOrder
from coreason_enclave.rollcall import encode_roll_call
from coreason_enclave.updates import SealedMessage, encode_arrays, layout_of

__all__ = ["Attempt"]


@dataclass
class _Batch:
    """What one batch of things heard changes."""

    received: dict[str, KeptUpdate] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    offences: dict[str, str] = field(default_factory=dict)


class Attempt:
    """The open attempt of the open round: its base model, and what was admitted and refused (reason codes) so far."""

    def __init__(self, of: Run) -> None:
        self._of, self._journal = of, of.journal
        state = of.journal.state
        self.base = of.journal.store.load_model(state.models[-1])
        self._layout, self._payload = layout_of(self.base), encode_arrays(self.base)
        self._roll_call = encode_roll_call({site: text.encode() for site, text in of.enrolments().items()})
        self._orders = self._issue()
        self.admitted: dict[str, Admitted] = {}
        self.refused: dict[str, str] = dict(state.refused)

    def run(self, exchange: Exchange) -> None:
        """Ask whoever has not been heard yet, and hear them until the deadline."""
        self.restore()
        self._drop_the_unreachable()
        for batch in exchange.ask(self.parcels(), self._of.job.round_deadline_s):
            self.hear(batch)

    def restore(self) -> None:
        """Admit once more what was admitted before a crash; what is not there any more is asked for again."""
        received = self._journal.state.received
        for site, kept in received.items():
            if site not in self._of.sites.registered or self._of.sites.is_revoked(site):
                continue
            try:
                message = self._journal.store.load_update(kept.envelope)
                self._accept(site, self._admission(site).admit(message, now=kept.admitted_at), kept.envelope)
            except (RunFolderError, UpdateRefused) as error:
                self._journal.log("admit", "lost", {"site": site, "message": str(error)})
        self._journal.save(received={site: kept for site, kept in received.items() if site in self.admitted})

    def parcels(self) -> list[Parcel]:
        """The orders of the sites that have not been heard yet."""
        heard = self.admitted.keys() | self.refused.keys()
        return [self._parcel(order) for site, order in self._orders.items() if site not in heard]

    def hear_all(self, deliveries: Iterable[Delivery]) -> None:
        """Take replies that somebody else brought, by the node that they come from; who is missing stayed silent."""
        asked = {parcel.node_id: parcel.site for parcel in self.parcels()}
        waiting, heard = dict(asked), list[Heard]()
        for delivery in deliveries:
            if isinstance(delivery.content, Undelivered):
                continue
            site = asked.get(delivery.node_id)
            first = waiting.pop(delivery.node_id, None) is not None
            came = Came.STRAY if site is None else Came.FIRST if first else Came.AGAIN
            heard.append(Heard(came, site or "", delivery.node_id, delivery.content))
        silent = [Heard(Came.NEVER, site, node, reason=Reason.NO_REPLY) for node, site in waiting.items()]
        self.hear([*heard, *silent])

    def hear(self, batch: Iterable[Heard]) -> None:
        """Take what came in; durable when this returns."""
        changes = _Batch()
        for heard in batch:
            self._hear(heard, changes)
        state = self._journal.state
        self.refused.update(changes.refused)
        recorded = self._journal.offended(changes.offences, self._of.sites.activations()) if changes.offences else {}
        self._journal.save(
            received={**state.received, **changes.received}, refused={**state.refused, **changes.refused}, **recorded
        )
        for site, kept in changes.received.items():
            self._accept(site, self.admitted[site], kept.envelope)

    def _hear(self, heard: Heard, changes: _Batch) -> None:
        match heard.came:
            case Came.FIRST:
                self._first(heard, changes)
            case Came.AGAIN:
                self._again(heard, changes)
            case Came.NEVER:
                self._refuse(heard.site, heard.reason or Reason.NO_REPLY, "", changes, heard.reason is Reason.NO_REPLY)
            case Came.LATE:
                self._of.note_late(heard.site)
            case Came.STRAY:
                self._of.note_stray(heard.node_id)

    def _first(self, heard: Heard, changes: _Batch) -> None:
        """The numbered checks; a site's own refusal is its right, anything else that is wrong is an offence."""
        site, content = heard.site, heard.content
        if self._of.sites.is_revoked(site):
            self._refuse(site, Reason.REVOKED, f"{site} is revoked", changes, offence=False)
        elif isinstance(content, SiteRefused):
            self._refuse(site, content.reason, f"{site} refused the order", changes, offence=False)
        elif not isinstance(content, SealedMessage):
            reason = content.reason if isinstance(content, EnvelopeError) else Reason.MALFORMED
            self._refuse(site, reason, f"the answer of {site} is refused: {content}", changes)
        else:
            self._admit(site, content, changes)

    def _admit(self, site: str, message: SealedMessage, changes: _Batch) -> None:
        now = self._of.clock()
        try:
            self.admitted[site] = self._admission(site).admit(message, now=now)
        except UpdateRefused as refusal:
            self._refuse(site, refusal.reason, str(refusal), changes)
        else:
            changes.received[site] = KeptUpdate(envelope=self._journal.store.save_update(message), admitted_at=int(now))

    def _again(self, heard: Heard, changes: _Batch) -> None:
        """One more answer to one order: no matter if it says the same, a replay or a change of mind if it does not."""
        site, admitted = heard.site, self.admitted.get(heard.site)
        if admitted is None or isinstance(heard.content, SiteRefused):
            return  # the first answer decided
        try:
            if isinstance(heard.content, SealedMessage):
                again = self._admission(site).admit(heard.content, now=self._of.clock())
                if again.update.digest == admitted.update.digest:
                    return
        except UpdateRefused:
            pass
        message = f"{site} answered one order twice, and not the same"
        self._journal.refuse("admit", site, Reason.REPLAYED, message)
        changes.offences[site] = Reason.REPLAYED

    def _refuse(self, site: str, reason: Reason, message: str, changes: _Batch, offence: bool = True) -> None:
        changes.refused[site] = reason.value
        if offence:
            changes.offences[site] = reason.value
        self._journal.refuse("admit", site, reason, message)

    def _accept(self, site: str, accepted: Admitted, envelope: str) -> None:
        """Keep the site's ledger head for its next order, and say what was admitted."""
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
            **({} if newest else {"ledger_set_back": True}),
        }
        self._journal.log("admit", "accepted", details)

    def _drop_the_unreachable(self) -> None:
        """Sites that left the registry, or were revoked, while their round was open."""
        changes = _Batch()
        for site in self._journal.state.nonces.keys() - self.admitted.keys() - self.refused.keys():
            if self._of.sites.is_revoked(site):
                self._refuse(site, Reason.REVOKED, f"{site} is revoked", changes, offence=False)
            elif site not in self._of.sites.registered:
                self._refuse(site, Reason.NO_REPLY, f"{site} is not registered any more", changes, offence=False)
        if changes.refused:
            self.refused.update(changes.refused)
            self._journal.save(refused={**self._journal.state.refused, **changes.refused})

    def _admission(self, site: str) -> Admission:
        return Admission(self._orders[site], self._of.sites.registered[site].public_key, self._layout, self._of.profile)

    def _issue(self) -> dict[str, RoundOrder]:
        state, heads = self._journal.state, {}
        for site in state.nonces:
            if (head := self._of.heads.get(site)) is not None:
                heads[site] = head
        return issue_orders(
            self._of.job,
            round_number=state.open_round,
            nonces=state.nonces,
            base_model_digest=state.models[-1],
            roll_call_digest=sha256_hex(self._roll_call),
            last_heads=heads,
            now=self._of.clock(),
        )

    def _parcel(self, order: RoundOrder) -> Parcel:
        return Parcel(
            site=order.site_id,
            node_id=self._of.sites.registered[order.site_id].node_id,
            errand=Errand.TRAIN,
            message=SealedMessage(seal(ORDER_TYPE, order.canonical(), self._of.signer), self._payload, self._roll_call),
            group=str(order.round_number),
            ttl_s=self._of.job.round_deadline_s + GRACE_S,
        )
