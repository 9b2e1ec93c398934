"""Checks the sites' ledgers in a run folder: complete, signed by their sites, and charged for every accepted update."""

from __future__ import annotations

from aegis.errors import VerificationFailed
from aegis.verification.findings import Answer, Answers, Reference, fails, holds, is_missing, require, stays_open
from aegis.verification.ledgers import SiteLedger
from aegis.verification.records import Records
from coreason_enclave.accounting import NonPrivate
from coreason_enclave.errors import EnclaveError
from coreason_enclave.ledger import open_export


def check_ledgers(records: Records, _: Reference) -> Answers:
    """Check, for every site with an accepted update:

    1. the ledger's export is present, and verifies by itself;
    2. the export holds every ledger head that came with an accepted update;
    3. the site signed this very export;
    4. the export's head equals the head in the log's last line, for sites on the coordinator's host.
    """
    for site, ledger in records.ledgers.items():
        if records.is_elsewhere(site):
            yield is_missing(f"the ledger export of {site}: {_export_wanted(site)}")
        elif isinstance(ledger, str):
            yield fails(f"{site}: {ledger}")
        else:
            yield _signed(records, site, ledger)


def _signed(records: Records, site: str, ledger: SiteLedger) -> Answer:
    unknown = [update for update in records.updates_of(site) if not ledger.knows(update.ledger_head)]
    if unknown:
        where = f"entry {unknown[0].ledger_head.seq}, which the coordinator saw (line {unknown[0].line})"
        return fails(f"{site}: {where}, is not in its ledger: the ledger was rolled back, or belongs to another site")
    head, released = ledger.findings.head, records.trail.released
    logged = None if released is None else released.ledgers.get(site)
    if not records.exists(f"ledger/{site}.dsse"):
        if records.is_remote(site):
            return is_missing(f"the signature of {site} over its ledger: {_export_wanted(site)}")
        return fails(f"{site}: ledger/{site}.dsse is missing: the site's signature over this ledger is unknown")
    try:
        _require_signature(records, site, ledger)
    except (EnclaveError, VerificationFailed) as error:
        return fails(f"{site}: {error}")
    if logged is None and not records.is_remote(site):
        return fails(f"{site}: the log names no head for its exported ledger")
    if logged is not None and (logged.seq, logged.hash) != (head.seq, head.hash):
        return fails(f"{site}: its ledger's head (entry {head.seq}) differs from the log's (entry {logged.seq})")
    return holds(f"{site}: {ledger.findings.entries} entries, head {head.seq}:{head.hash[:16]}…, signed by the site")


def _require_signature(records: Records, site: str, ledger: SiteLedger) -> None:
    export, signed = records.data(f"ledger/{site}.json"), records.data(f"ledger/{site}.dsse")
    statement, head = open_export(signed, export, site, records.key_of(site)), ledger.findings.head
    require((statement.head.seq, statement.head.hash) == (head.seq, head.hash), "another ledger head was signed")


def _export_wanted(site: str) -> str:
    return f"ask {site} for the two files that `coreason-enclave export-ledger` writes, and put them into ledger/"


def check_events(records: Records, _: Reference) -> Answers:
    """Check every accepted update, repeated attempts included, against the ledger of its site."""
    for site, ledger in records.ledgers.items():
        if isinstance(ledger, str):
            why = "its ledger is missing here" if records.is_elsewhere(site) else "its ledger does not verify"
            yield stays_open(f"{site}: {why}")
        else:
            yield _check_charges(records, site, ledger)


def _check_charges(records: Records, site: str, ledger: SiteLedger) -> Answer:
    digest, replaced = records.job.digest(), False
    for update in records.updates_of(site):
        if (difference := ledger.disagreement(digest, update)) is not None:
            return fails(f"{site}, round {update.round_number} (line {update.line}): {difference}")
        if ledger.released(digest, update.round_number) == update.digest:
            continue
        if site not in records.config.declared_attackers:
            return fails(f"{site}, round {update.round_number}: its ledger did not release the admitted update")
        replaced = True
    if replaced:
        return stays_open(f"{site}: events agree; updates replaced after release (simulated attacker in config.json)")
    events = [update.event for update in records.updates_of(site)]
    counted = sum(event.steps for event in events if not isinstance(event, NonPrivate))
    steps = "non-private" if NonPrivate() in events else f"{counted} steps"
    return holds(f"{site}: {len(events)} updates, {steps}")
