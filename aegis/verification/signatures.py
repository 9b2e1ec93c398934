"""That each admitted update was signed by its site, and that the log says of it what the site signed."""

from __future__ import annotations

from collections.abc import Iterator

from aegis.errors import VerificationFailed
from aegis.verification.evidence import covers_its_order, is_simulated
from aegis.verification.findings import Answer, Answers, Reference, fails, holds, stays_open
from aegis.verification.records import Records
from aegis.verification.trail import AuditedUpdate
from coreason_enclave.accounting import event_from_dict
from coreason_enclave.encoding import sha256_hex
from coreason_enclave.envelope import KeyRing, open_envelope
from coreason_enclave.errors import EnclaveError
from coreason_enclave.heads import open_head
from coreason_enclave.orders import UPDATE_TYPE, UpdateStatement, parse_statement
from coreason_enclave.schemas import Provenance

__all__ = ["check_signatures"]


def check_signatures(records: Records, _: Reference) -> Answers:
    """Every envelope that the log names, under the key that the site is registered with."""
    for site in sorted({update.site for update in records.trail.updates}):
        yield _signed_by(records, site)


def _signed_by(records: Records, site: str) -> Answer:
    updates = records.updates_of(site)
    kept = [update for update in updates if update.envelope and records.exists(_name(update))]
    for update in kept:
        try:
            differing = list(_differences(records, update))
        except EnclaveError as error:
            return fails(f"{site}, round {update.round_number} (line {update.line}): {error}")
        if differing:
            what = f"the log says another {differing[0]} than the site signed"
            return fails(f"{site}, round {update.round_number} (line {update.line}): {what}")
    if len(kept) < len(updates):
        return stays_open(f"{site}: {len(updates) - len(kept)} of {len(updates)} envelopes are no longer kept")
    return holds(f"{site}: {len(kept)} signatures by key {records.config.participants[site][:16]}…")


def _differences(records: Records, update: AuditedUpdate) -> Iterator[str]:
    """Where the log's line and the signed statement part."""
    statement, key = _opened(records, update), records.config.participants[update.site]
    head = open_head(statement.signed_head, update.site, key)
    pairs: dict[str, tuple[object, object]] = {
        "site": (update.site, statement.site_id),
        "job": (records.job.digest(), statement.job_digest),
        "round": (update.round_number, statement.round_number),
        "update": (update.digest, statement.update_digest),
        "event": (update.event, event_from_dict(statement.event)),
        "noise source": (update.noise_source, statement.noise_source),
        "unit": (update.unit, statement.unit),
        "delta": (update.delta, statement.delta),
        "content": (update.content_changed, statement.content_changed),
        "provenance": (update.provenance is Provenance.SIMULATED, is_simulated(statement)),
        "nonce, key or job under its evidence": (True, covers_its_order(statement, key)),
        "ledger head": ((update.ledger_head.seq, update.ledger_head.hash), (head.seq, head.hash)),
    }
    return (name for name, (said, signed) in pairs.items() if said != signed)


def _opened(records: Records, update: AuditedUpdate) -> UpdateStatement:
    key = records.config.participants.get(update.site)
    if key is None:
        raise VerificationFailed(f"{update.site} is not among the participants of config.json")
    envelope = records.data(_name(update))
    if sha256_hex(envelope) != update.envelope:
        raise VerificationFailed(f"{_name(update)} does not have the digest that it is named by")
    return parse_statement(open_envelope(envelope, UPDATE_TYPE, KeyRing({update.site: key})).payload)


def _name(update: AuditedUpdate) -> str:
    return f"state/updates/{update.envelope}.json"
