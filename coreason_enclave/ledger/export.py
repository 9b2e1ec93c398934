"""Exports a ledger as one document, and verifies the export without trust in the site or in this package's store.

The document uses canonical JSON: ``{"format", "entries": [{"seq", "prev", "payload", "hash"}, …], "head": {"seq",
"hash"}}``. Each payload holds the stored bytes as a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from pydantic import ConfigDict, ValidationError

from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
from coreason_enclave.crypto import canonical_json, parse_json
from coreason_enclave.errors import EnvelopeError, LedgerCorrupted
from coreason_enclave.ledger import claims
from coreason_enclave.ledger.chain import Link
from coreason_enclave.ledger.pricing import budget_pico, step_cost_pico
from coreason_enclave.ledger.records import Acknowledgement, JobClaim, LedgerHead, LineageClaim, RoundPlan
from coreason_enclave.ledger.state import JobRecord, LedgerState, LineageRecord, follow
from coreason_enclave.schemas import HexDigest, StrictModel
from coreason_enclave.system import explain

EXPORT_FORMAT = "coreason.ledger.export/1"
_LIMIT = 1 << 30
_SLACK = 1 + Fraction(1, 10**6)  # tolerated difference between two builds of one accountant


@dataclass(frozen=True, kw_only=True)
class ExportFindings:
    """The content of a verified export.

    Attributes:
        ledger_id: random, chosen at creation; distinguishes two ledgers of one site.
        durable: False for a ledger that lived in memory only.
        unattested: True for the ledger of a site under profile ``unattested``.
        head: the last entry. Compare this head with a head seen elsewhere.
        lineages, jobs: the claims that the entries support.
        acknowledged: heads that this history lacks, and the persons who continue without them. No claim covers the
            spend up to those heads.
        not_checked: facts that no export can show by itself.
    """

    ledger_id: str
    durable: bool
    unattested: bool
    head: LedgerHead
    entries: int
    lineages: tuple[LineageClaim, ...]
    jobs: tuple[JobClaim, ...]
    acknowledged: tuple[Acknowledgement, ...]
    not_checked: tuple[str, ...]


class _Row(StrictModel):
    model_config = ConfigDict(strict=True)
    seq: int
    prev: HexDigest
    payload: str
    hash: HexDigest


class _Head(StrictModel):
    model_config = ConfigDict(strict=True)
    seq: int
    hash: HexDigest


class _Export(StrictModel):
    model_config = ConfigDict(strict=True)
    format: str
    entries: list[_Row]
    head: _Head


def write_export(links: Sequence[Link]) -> bytes:
    """Return all rows verbatim, and the head, as one document."""
    rows = [{"seq": x.seq, "prev": x.prev, "payload": x.payload.decode("ascii"), "hash": x.hash} for x in links]
    head = {"seq": links[-1].seq, "hash": links[-1].hash}
    return canonical_json({"format": EXPORT_FORMAT, "entries": rows, "head": head})


def verify_export(data: bytes, *, expected_head: LedgerHead | None = None) -> ExportFindings:
    """Verify an export from its bytes alone, and return the claims that it supports.

    Checks, in this order:

    1. The document has the known format.
    2. The chain holds from the first entry to the stated head.
    3. All entries parse and obey the rules.
    4. Each recorded budget, cost and step allowance is at least as strict as today's accounting.
    5. The history contains ``expected_head``, a head seen earlier, or acknowledges its loss.

    Raises:
        LedgerCorrupted: a check fails; the message names the check and the place.
    """
    document = _read(data)
    state = LedgerState()
    for row in document.entries:
        state = follow(state, Link(row.seq, row.prev, row.payload.encode(), row.hash))
    head = state.head
    if head is None or state.founded is None or head != LedgerHead(seq=document.head.seq, hash=document.head.hash):
        raise LedgerCorrupted("the export's head differs from its last entry: entries were removed or added")
    for lineage in (state.lineages or {}).values():
        _audit(lineage)
    if expected_head is not None:
        _require_known(expected_head, document.entries, state.acknowledged)
    return _findings(state, state.founded.ledger_id, head, rolled_back_checked=expected_head is not None)


def _read(data: bytes) -> _Export:
    try:
        parse_json(data, limit=_LIMIT)
        document = _Export.model_validate_json(data)
    except (EnvelopeError, ValidationError) as error:
        raise LedgerCorrupted(f"not a ledger export: {explain(error)[:300]}") from error
    if document.format != EXPORT_FORMAT:
        raise LedgerCorrupted(f"unknown export format {document.format!r:.80}, expected {EXPORT_FORMAT!r}")
    return document


def _audit(lineage: LineageRecord) -> None:
    """Raise :class:`LedgerCorrupted` if recorded numbers are looser than the numbers that accounting derives."""
    name = lineage.registration.lineage
    if lineage.budget_pico > budget_pico(lineage.registration) * _SLACK:
        raise LedgerCorrupted(f"lineage {name!r} records a larger budget than its caps allow")
    for raised in lineage.raised:
        former = replace(lineage.registration, caps=raised.former)
        if raised.former_budget_pico > budget_pico(former) * _SLACK:
            raise LedgerCorrupted(f"lineage {name!r} recorded a larger budget than its former caps allowed")
    for job_id, job in lineage.jobs.items():
        if isinstance(job.first, RoundPlan):
            _audit_job(f"job {job_id!r} on lineage {name!r}", job, job.first, lineage.registration.filter_order)


def _audit_job(name: str, job: JobRecord, plan: RoundPlan, order: int) -> None:
    allowed, cost = job.allowed_steps or 0, job.step_cost_pico or 0
    if cost * _SLACK < step_cost_pico(plan, order):
        raise LedgerCorrupted(f"{name} records a lower cost per step than its mechanism has")
    event = PoissonSampledGaussian(plan.noise_multiplier, plan.sample_rate, allowed)
    if compose_epsilon([event], plan.delta).epsilon > plan.target_epsilon * float(_SLACK):
        raise LedgerCorrupted(f"{name} records more steps than its target_epsilon affords")


def _require_known(expected: LedgerHead, rows: Sequence[_Row], acknowledged: Sequence[Acknowledgement]) -> None:
    in_history = 0 <= expected.seq < len(rows) and rows[expected.seq].hash == expected.hash
    if not in_history and expected not in [forgotten.head for forgotten in acknowledged]:
        raise LedgerCorrupted(
            f"the known entry {expected.seq} ({expected.hash[:16]}…) is missing: the ledger was rolled back or replaced"
        )


def _findings(state: LedgerState, ledger_id: str, head: LedgerHead, *, rolled_back_checked: bool) -> ExportFindings:
    lineages = state.lineages or {}
    not_checked = ["whether every use of the data was recorded"]
    if state.unattested:
        not_checked.append("which code wrote this ledger: not attested, by the profile")
    if not rolled_back_checked:
        not_checked.append("whether later entries were cut off: compare the head with one kept elsewhere")
    not_checked += [
        f"the privacy spent in lost entries up to entry {forgotten.head.seq} ({forgotten.head.hash[:16]}…): "
        f"{forgotten.by} continued without them ({forgotten.why})"
        for forgotten in state.acknowledged
    ]
    return ExportFindings(
        ledger_id=ledger_id,
        durable=state.founded is not None and state.founded.durable,
        unattested=state.unattested,
        head=head,
        entries=head.seq + 1,
        lineages=tuple(claims.lineage_claim(state, name) for name in lineages),
        jobs=tuple(claims.job_claim(state, name, job) for name, record in lineages.items() for job in record.jobs),
        acknowledged=state.acknowledged,
        not_checked=tuple(not_checked),
    )
