"""A site's exported ledger: verified, and indexed by the rounds that were charged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aegis.errors import VerificationFailed
from aegis.verification.audit_trail import AuditedUpdate
from coreason_enclave.crypto import parse_json
from coreason_enclave.ledger import (
    ExportFindings,
    JobClaim,
    LedgerRound,
    LedgerState,
    Link,
    NoiseSource,
    RoundPlan,
    follow,
    verify_export,
)
from coreason_enclave.wire import LedgerHeadStatement

_LIMIT = 1 << 30


@dataclass(frozen=True)
class SiteLedger:
    """One verified export.

    Attributes:
        hashes: the hash of every entry, by number.
        rounds: the reservation and commit of each round, by job digest and round number.
    """

    site: str
    findings: ExportFindings
    hashes: tuple[str, ...]
    rounds: Mapping[tuple[str, int], LedgerRound]

    def knows(self, head: LedgerHeadStatement) -> bool:
        """Return True if the ledger's history contains the head."""
        return 0 <= head.seq < len(self.hashes) and self.hashes[head.seq] == head.hash

    def claim(self, job_digest: str) -> JobClaim | None:
        """Return the ledger's claim for a job; None if the job reserved no budget."""
        return next((claim for claim in self.findings.jobs if claim.job_digest == job_digest), None)

    def noise_sources(self, job_digest: str) -> frozenset[NoiseSource]:
        """Return the sources of the job's noise."""
        claim = self.claim(job_digest)
        return frozenset() if claim is None else frozenset(claim.noise_sources)

    def disagreement(self, job_digest: str, update: AuditedUpdate) -> str | None:
        """Describe how an accepted update differs from the ledger's commit for its round; None if they agree.

        :meth:`released` gives the digest for comparing the update itself.
        """
        record = self.rounds.get((job_digest, update.round_number))
        if record is None:
            return "the ledger never reserved this round for this job"
        if record.actual is None:
            return "the ledger reserved this round and never committed it"
        if record.actual != update.event:
            return f"the log admits event {update.event}, but the ledger committed {record.actual}"
        if record.plan.unit.value != update.unit:
            return f"the log says unit {update.unit}, but the ledger charges per {record.plan.unit}"
        if not isinstance(record.plan, RoundPlan):
            return None
        if record.plan.noise_source.value != update.noise_source:
            return f"the log says noise source {update.noise_source}, but the ledger says {record.plan.noise_source}"
        if record.plan.delta != update.delta:
            return f"the log says delta {update.delta:g}, but the ledger says {record.plan.delta:g}"
        return None

    def released(self, job_digest: str, round_number: int) -> str | None:
        """Return the digest of the update that the site released in a round."""
        record = self.rounds.get((job_digest, round_number))
        return None if record is None else record.update_digest


def read_ledger(site: str, data: bytes) -> SiteLedger:
    """Verify and index an export.

    Raises:
        LedgerCorrupted: the export does not verify.
        VerificationFailed: a round of one job appears on two lineages.
    """
    findings = verify_export(data)
    rows = parse_json(data, limit=_LIMIT)["entries"]
    links = [Link(row["seq"], row["prev"], row["payload"].encode(), row["hash"]) for row in rows]
    state = LedgerState()
    for link in links:
        state = follow(state, link)
    return SiteLedger(site, findings, tuple(link.hash for link in links), _rounds(site, state))


def _rounds(site: str, state: LedgerState) -> dict[tuple[str, int], LedgerRound]:
    rounds: dict[tuple[str, int], LedgerRound] = {}
    for lineage in (state.lineages or {}).values():
        for job in lineage.jobs.values():
            for number, record in job.rounds.items():
                key = (record.plan.job_digest, number)
                if key in rounds:
                    raise VerificationFailed(f"{site} charged round {number} of one job to two lineages")
                rounds[key] = record
    return rounds
