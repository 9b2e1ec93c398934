"""The configuration of the simulated sites that examples found: public data, attestation that proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coreason_enclave.attestation import AttestationPolicy
from coreason_enclave.policy import LineagePolicy, SiteConfig, SitePolicy
from coreason_enclave.schemas import AggregationStrategy, Aggregator, PrivacyUnit, Profile

__all__ = ["Budget", "simulated_site"]


@dataclass(frozen=True)
class Budget:
    """What a site lets be spent on its one lineage over all jobs, and by one of them, at ``delta``."""

    epsilon: float
    job_epsilon: float
    delta: float


def simulated_site(
    name: str,
    *,
    coordinator_key: str,
    participants: Mapping[str, str],
    dataset_id: str,
    declared: int,
    budget: Budget,
    model_arch: str,
    min_clients: int,
) -> SiteConfig:
    """A development site with one public, record-level lineage of ``declared`` rows; see ``site.toml``."""
    policy = SitePolicy(
        coordinator_keys=(coordinator_key,),
        participants=dict(participants),
        model_archs=(model_arch,),
        strategies=tuple(AggregationStrategy),
        aggregators=tuple(Aggregator),
        min_clients=min_clients,
        min_units=100,
        min_noise_multiplier=0.3,
        max_update_norm=1000.0,
        max_order_lifetime_s=3600,
        coordinator_attestation=AttestationPolicy.simulated_only(),
    )
    lineage = LineagePolicy(
        lineage=f"{name}/{dataset_id.rpartition('/')[2]}",
        dataset_id=dataset_id,
        unit=PrivacyUnit.RECORD,
        nominal_units=declared,
        public=True,
        epsilon=budget.epsilon,
        delta=budget.delta,
        job_epsilon=budget.job_epsilon,
        job_delta=budget.delta,
    )
    return SiteConfig(
        version=1,
        site_id=name,
        profile=Profile.DEVELOPMENT,
        data_root="data",
        keys="keys",
        ledger="ledger.sqlite",
        audit="audit.jsonl",
        attester="simulated",
        policy=policy,
        lineages=(lineage,),
    )
