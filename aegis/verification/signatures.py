"""Checks that each site signed its accepted updates, and that the log agrees with the signed statements."""

from __future__ import annotations

from collections.abc import Iterator

from aegis.coordination import admit_enrolment
from aegis.errors import UpdateRefused, VerificationFailed
from aegis.verification.audit_trail import AuditedUpdate
from aegis.verification.evidence import covers_its_order, provenance_without_hardware
from aegis.verification.findings import Answer, Answers, Reference, fails, holds, require
from aegis.verification.records import Records
from coreason_enclave.accounting import event_from_dict
from coreason_enclave.errors import EnclaveError
from coreason_enclave.ledger import open_head
from coreason_enclave.schemas import Profile, Provenance
from coreason_enclave.wire import SealedMessage


def check_signatures(records: Records, reference: Reference) -> Answers:
    """Check, under each site's registered key:

    1. the key equals the caller's key for the site, if the caller gave a key;
    2. every site in the cohort signed up for this very job;
    3. every envelope named in the log is present and signed, and agrees with the log.
    """
    for site, key in sorted(reference.participants.items()):
        known = records.config.participants.get(site)
        require(known == key, f"--participant-key {site}: config.json has {'none' if known is None else 'another'}")
    sites = {update.site for update in records.trail.updates}
    enrolled = sites.union(*(record.enrolled for record in records.state.history))
    for site in sorted(enrolled):
        _require_enrolled(records, site)
    for site in sorted(sites):
        yield _signed_by(records, site)


def _require_enrolled(records: Records, site: str) -> None:
    envelope, key = records.state.enrolments.get(site), records.config.participants.get(site)
    require(envelope is not None and key is not None, f"{site} took part, but its enrolment or its key is missing")
    message, profile = SealedMessage(str(envelope).encode()), _profile(records)
    try:
        admit_enrolment(message, records.job, site, str(key), profile=profile)
    except UpdateRefused as refusal:
        raise VerificationFailed(f"the enrolment of {site}: {refusal}") from refusal


def _without_hardware(update: AuditedUpdate) -> Provenance | None:
    return update.provenance if update.provenance in (Provenance.SIMULATED, Provenance.CLAIMED) else None


def _profile(records: Records) -> Profile:
    stated = records.config.profile
    require(stated in set(Profile), f"config.json: {stated!r:.60} is no profile")
    return Profile(stated)


def _signed_by(records: Records, site: str) -> Answer:
    updates = records.updates_of(site)
    for update in updates:
        where = f"{site}, round {update.round_number} (line {update.line})"
        try:
            differing = next(_differences(records, update), None)
        except (EnclaveError, VerificationFailed) as error:
            return fails(f"{where}: {error}")
        if differing is not None:
            return fails(f"{where}: the log and the signed statement differ in {differing}")
    return holds(f"{site}: {len(updates)} signatures by key {records.key_of(site)[:16]}…")


def _differences(records: Records, update: AuditedUpdate) -> Iterator[str]:
    """Yield the names of the fields in which the log's line differs from the signed statement."""
    statement, key = records.statement(update), records.key_of(update.site)
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
        "provenance": (_without_hardware(update), provenance_without_hardware(statement)),
        "nonce, key or job that the evidence covers": (True, covers_its_order(statement, key)),
        "ledger head": ((update.ledger_head.seq, update.ledger_head.hash), (head.seq, head.hash)),
    }
    return (name for name, (logged, signed) in pairs.items() if logged != signed)
