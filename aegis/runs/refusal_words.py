"""Words for a paused run: what each refusing site's code means, and the line that refused where it can be read here.

A site sends a reason code alone. Where the site's folder lies on this host (a simulated federation), the coordinator's
person may read ``site.toml`` and, of a public lineage, the ledger; every other code gets the command that explains it.
"""

from __future__ import annotations

from collections.abc import Iterator

from aegis.errors import RunPaused, RunRefused
from aegis.federation import FederationFolder
from aegis.services import reading_local_sites
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.schemas import FederationJob


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
            return ""
        local = sites[site]
        entry = local.config.lineage_of(job.dataset_id)
        if reason == Reason.POLICY:
            local.config.policy.check(job, entry)
        if reason != Reason.BUDGET_EXCEEDED or not entry.public:
            return ""
        claim = local.ledger.lineage_claim(entry.lineage)
        left = max(0.0, claim.caps.epsilon - claim.spent_epsilon)
        return (
            f"lineage {entry.lineage} has spent epsilon {claim.spent_epsilon:.3f} of {claim.caps.epsilon:g}, "
            f"{left:.3f} is left: a job with a target_epsilon below that, or more noise, may fit"
        )
