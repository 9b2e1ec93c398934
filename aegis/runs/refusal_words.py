"""Words for a paused run: what each refusing site's code means, and the line that refused where it can be read here.

A site sends a reason code alone. Where the site's folder lies on this host (a simulated federation), the coordinator's
person may read ``site.toml`` and the ledger, the latter of a public lineage or under profile ``development``. The price
of the job against the job's own cap needs no site. Every code gets the command that explains it.
"""

from __future__ import annotations

from collections.abc import Iterator

from aegis.errors import RunPaused, RunRefused
from aegis.federation import FederationFolder
from aegis.services import reading_local_sites
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.ledger import beyond_budget, beyond_own_cap, left_in_words, schedule_of
from coreason_enclave.schemas import FederationJob, PrivacyUnit, Profile

_ASK = (
    "what is left is the site's to tell: ask it for the lines of coreason-enclave ledger show; "
    "aegis plan prices the job"
)


def in_words(paused: RunPaused, job: FederationJob, federation: FederationFolder) -> RunPaused:
    """Return the same error with the refusals explained: policy line, budget left, and ``aegis explain`` for the rest.

    Args:
        job: with every privacy value explicit.
    """
    lines = list(_local_words(paused, job, federation))
    codes = sorted(set(paused.reasons.values()) & set(Reason))
    if codes:
        lines.append(f"see aegis explain {codes[0]}" + "".join(f", aegis explain {code}" for code in codes[1:3]))
    if isinstance(paused, RunRefused):
        lines.append("waiting does not help: a person has to act first")
    if not lines:
        return paused
    explained = type(paused)("; ".join((str(paused), *lines)))
    explained.reasons = paused.reasons
    return explained


def _local_words(paused: RunPaused, job: FederationJob, federation: FederationFolder) -> Iterator[str]:
    if Reason.BUDGET_EXCEEDED in paused.reasons.values():
        plan = schedule_of(job, PrivacyUnit.RECORD)  # the price of a schedule is the same for every unit
        if plan is not None and (beyond := beyond_own_cap(plan)):
            yield beyond
    for site, reason in sorted(paused.reasons.items()):
        try:
            words = _words(site, reason, job, federation)
        except EnclaveError as error:  # the site's own files are damaged: its words name file and remedy
            words = " ".join(str(error).split())
        if words:
            yield f"{site}: {words}"


def _words(site: str, reason: str, job: FederationJob, federation: FederationFolder) -> str:
    """Return what this host's files say about one refusal; empty if they say nothing."""
    if reason not in {Reason.POLICY, Reason.LINEAGE_UNKNOWN, Reason.BUDGET_EXCEEDED}:
        return ""
    with reading_local_sites(federation, [site]) as sites:
        if site not in sites:
            return _ASK if reason == Reason.BUDGET_EXCEEDED else ""
        local = sites[site]
        entry = local.config.lineage_of(job.dataset_id)
        if reason == Reason.POLICY:
            local.config.policy.check(job, entry)
        if reason != Reason.BUDGET_EXCEEDED:
            return ""
        if not entry.public and federation.config().profile is not Profile.DEVELOPMENT:
            return _ASK
        plan, claim = schedule_of(job, entry.unit), local.ledger.lineage_claim(entry.lineage)
        return (plan and beyond_budget(plan, claim)) or left_in_words(claim)
