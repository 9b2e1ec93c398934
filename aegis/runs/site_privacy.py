"""Client-level privacy of a run: checks the federation's budget, opens the ledger, and states the guarantee."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from aegis.client_privacy import LINEAGE, ClientPrivacy
from aegis.errors import InvalidJob
from aegis.federation import ClientBudget, FederationConfig, FederationFolder
from coreason_enclave.crypto import JobKeys, SecretJobKeys, unsafe_seeded_keys
from coreason_enclave.ledger import SqliteLedger
from coreason_enclave.schemas import FederationJob

EXPORT = "ledger/coordinator.json"
"""Path of the exported coordinator's ledger in a run folder."""
_SEEDED_AS = "/coordinator"
"""Label that derives the coordinator's keys from an injected seed; no site can have this name."""
_NOT_PROTECTED_AGAINST = (
    "the coordinator, which sees every update",
    "anyone who learns the cohort of a round from the coordinator's log or state, or from the network",
    "disclosure about single records or persons: each site's own guarantee, a separate one, bounds that",
)


def require_site_budget(job: FederationJob, config: FederationConfig) -> ClientBudget | None:
    """Return the federation's budget for a job with client-level privacy; None if the job promises none.

    Raises:
        InvalidJob: the federation has no budget for the job, the job asks for more than the budget allows, or a
            participant has the name ``coordinator``.
    """
    if job.client_privacy is None:
        return None
    budget, requested = config.client_privacy, job.client_privacy
    if budget is None:
        raise InvalidJob("the job has client_privacy, but federation.toml lacks its caps: the table [client_privacy]")
    if requested.target_epsilon > budget.job_epsilon or requested.delta > budget.job_delta:
        raise InvalidJob(
            f"client_privacy requests epsilon {requested.target_epsilon:g} at delta {requested.delta:g}, but "
            f"federation.toml allows a job {budget.job_epsilon:g} at {budget.job_delta:g}"
        )
    if "coordinator" in config.public_keys:
        raise InvalidJob("the id coordinator names the coordinator's ledger: register the site under another id")
    return budget


@contextmanager
def client_privacy_of(
    job: FederationJob, federation: FederationFolder, unsafe_seed: int | None
) -> Iterator[ClientPrivacy | None]:
    """Yield the coordinator's ledger and key for ``job``; None if the job promises no client-level privacy.

    Raises:
        InvalidJob: see :func:`require_site_budget`.
        LedgerError: the ledger cannot be used.
    """
    budget = require_site_budget(job, federation.config())
    if budget is None or job.client_privacy is None:
        yield None
        return
    with closing(SqliteLedger(federation.coordinator / "ledger.sqlite")) as ledger:
        yield ClientPrivacy(job, job.client_privacy, ledger, budget.caps(), _keys(federation, unsafe_seed))


def statement(privacy: ClientPrivacy) -> dict[str, Any] | None:
    """Return the guarantee per site, with every parameter of the number (JSON types); None before the first round."""
    guarantee, claim = privacy.guarantee(), privacy.account.claim()
    if guarantee is None or claim is None:
        return None
    lineage = privacy.ledger.lineage_claim(LINEAGE)
    return {
        "unit": guarantee.unit.value,
        "epsilon": guarantee.epsilon,
        "delta": guarantee.delta,
        "accountant": guarantee.accountant.value,
        "rdp_epsilon": guarantee.rdp_epsilon,
        "target_epsilon": privacy.config.target_epsilon,
        "neighboring_relation": guarantee.neighboring_relation.value,
        "sampling": f"{guarantee.sampling} over sites",
        "sample_rate": privacy.config.sample_rate,
        "noise_multiplier": privacy.config.noise_multiplier,
        "clip_norm": privacy.config.clip_norm,
        "draws": claim.steps_counted,
        "noise_sources": [source.value for source in claim.noise_sources],
        "over_all_jobs": {"cap": lineage.caps.epsilon, "delta": lineage.caps.delta, "spent": lineage.spent_epsilon},
        "protects_against": "anyone who sees the released models",
        "does_not_protect_against": list(_NOT_PROTECTED_AGAINST),
    }


def _keys(federation: FederationFolder, unsafe_seed: int | None) -> JobKeys:
    if unsafe_seed is not None:
        return unsafe_seeded_keys(unsafe_seed, _SEEDED_AS)
    return SecretJobKeys(federation.coordinator / "draws")
