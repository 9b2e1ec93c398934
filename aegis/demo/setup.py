"""Creates simulated sites under a run's own folder: real rows, keys and ledgers, simulated attestation.

The sites register their data as public, which permits the development profile and the non-private twin. Every
demonstration creates its own sites with their own budgets, and never refunds another demonstration's budgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aegis.demo.randhie_data import PreparedSite, load_evaluation_set, prepare_sites
from aegis.demo.recipe import DELTA, MAX_UPDATE_NORM, DemoOptions
from aegis.federation import FederationConfig, FederationFolder
from aegis.runtimes import create_site
from coreason_enclave.attestation import AttestationPolicy
from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.policy import LineagePolicy, SiteConfig, SitePolicy
from coreason_enclave.schemas import AggregationStrategy, Aggregator, Profile

DISJOINT_UNITS = "the study's designers: every family was enrolled at one site; no person in this file is at two sites"

_KEYS = "keys"
_LINEAGE_ALLOWANCE = 1.5
"""Budget per dataset in units of the job's epsilon: room for one job, not for a second.

A job's Rényi cost exceeds its epsilon by a tenth.
"""


def create_demo_federation(path: Path, options: DemoOptions) -> FederationFolder:
    """Create the federation in ``path``, complete an interrupted set-up, or return the existing federation."""
    federation = FederationFolder(path)
    if federation.exists:
        return federation
    coordinator_key = federation.signer().public_hex
    prepared = prepare_sites(path / "sites", sites=options.sites, unit=options.unit)
    keys = {site.site_id: _key_of(path / "sites" / site.site_id) for site in prepared}  # first: each policy names all
    for site in prepared:
        if not (path / "sites" / site.site_id / "site.toml").exists():
            create_site(path / "sites" / site.site_id, _config(site, options, coordinator_key, keys))
    federation.save_evaluation_set(load_evaluation_set(options.unit))
    federation.create(
        FederationConfig(
            profile=Profile.DEVELOPMENT,
            delta=DELTA,
            public_keys=keys,
            disjoint_units=DISJOINT_UNITS,
            attester="simulated",
        )
    )
    return federation


def _key_of(folder: Path) -> str:
    return load_or_create_signer(folder / _KEYS / "signing.key").public_hex


def _config(
    site: PreparedSite, options: DemoOptions, coordinator_key: str, public_keys: Mapping[str, str]
) -> SiteConfig:
    policy = SitePolicy(
        coordinator_keys=(coordinator_key,),
        participants=dict(public_keys),
        model_archs=("LogisticRegression",),
        strategies=tuple(AggregationStrategy),
        aggregators=tuple(Aggregator),
        min_clients=2,
        min_units=100,
        min_noise_multiplier=0.3,
        max_update_norm=MAX_UPDATE_NORM,
        max_order_lifetime_s=3600,
        coordinator_attestation=AttestationPolicy.simulated_only(),
    )
    allowance = min(_LINEAGE_ALLOWANCE * options.epsilon, 1000.0)
    lineage = LineagePolicy(
        lineage=f"{site.site_id}/randhie",
        dataset_id=site.dataset_id,
        unit=options.unit,
        nominal_units=site.nominal_units,
        public=True,
        epsilon=allowance,
        delta=DELTA,
        job_epsilon=allowance,
        job_delta=DELTA,
    )
    return SiteConfig(
        version=1,
        site_id=site.site_id,
        profile=Profile.DEVELOPMENT,
        data_root="data",
        keys=_KEYS,
        ledger="ledger.sqlite",
        audit="audit.jsonl",
        attester="simulated",
        policy=policy,
        lineages=(lineage,),
    )
