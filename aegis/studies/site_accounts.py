"""What a run cost each site: spent, reserved and left, as :mod:`coreason_enclave.ledger.budget_words` defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aegis.errors import RunFolderError
from aegis.runs import RunFolder
from aegis.stores import RoundRecord
from coreason_enclave.errors import EnclaveError
from coreason_enclave.ledger import verify_export


@dataclass(frozen=True)
class SiteAccount:
    """One site's price of a run.

    Attributes:
        spent, reserved: epsilon at the job's delta; None without a guarantee, and ``reserved`` also if the site keeps
            its ledger on another machine.
        steps_spent, steps_reserved: the steps behind both.
        cap: epsilon and delta of the lineage's cap; None if the site keeps its ledger on another machine.
        left: share of the cap's budget, from 0 to 1.
    """

    site: str
    spent: float | None
    reserved: float | None
    steps_spent: int
    steps_reserved: int | None = None
    cap: tuple[float, float] | None = None
    left: float | None = None


def accounts_of(run: RunFolder, last: RoundRecord) -> tuple[SiteAccount, ...]:
    """Return every site's account: from its ledger's export in the run folder, else from the run's own records.

    Raises:
        RunFolderError: an export in the folder does not verify.
    """
    job = run.job()
    accounts = []
    for site in sorted(last.steps.keys() | {path.stem for path in (run.path / "ledger").glob("*.dsse")}):
        path = run.path / "ledger" / f"{site}.json"
        if path.exists():
            accounts.append(_from_ledger(site, path.read_bytes(), job.job_id))
        else:
            accounts.append(SiteAccount(site, last.epsilon.get(site), None, last.steps.get(site, 0)))
    return tuple(accounts)


def _from_ledger(site: str, export: bytes, job_id: str) -> SiteAccount:
    try:
        findings = verify_export(export)
    except EnclaveError as error:
        raise RunFolderError(f"ledger/{site}.json does not verify: {error}") from error
    job = next((claim for claim in findings.jobs if claim.job_id == job_id), None)
    if job is None:
        return SiteAccount(site, 0.0, 0.0, 0, 0)
    lineage = next(claim for claim in findings.lineages if claim.lineage == job.lineage)
    return SiteAccount(
        site,
        spent=None if job.spent is None else job.spent.epsilon,
        reserved=None if job.guarantee is None else job.guarantee.epsilon,
        steps_spent=job.steps_spent,
        steps_reserved=job.steps_counted,
        cap=(lineage.caps.epsilon, lineage.caps.delta),
        left=lineage.left_share,
    )


def why_they_differ(accounts: Sequence[SiteAccount]) -> str | None:
    """Return one sentence if a site's spent and reserved epsilon differ, else None."""
    differing = [
        each for each in accounts if each.steps_reserved is not None and each.steps_reserved > each.steps_spent
    ]
    if not differing:
        return None
    sites = ", ".join(
        f"{each.site} ({(each.steps_reserved or 0) - each.steps_spent} of {each.steps_reserved} steps)"
        for each in differing
    )
    return (
        f"Reserved exceeds spent at {sites}: these steps were reserved before a round and did not run; the ledger gave "
        "their budget back, and quotes them in *reserved*, because that figure holds even if a result decided to stop."
    )
