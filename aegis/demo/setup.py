"""Creates the demonstration's study: simulated sites with real rows, keys and ledgers, and simulated attestation.

The sites register their data as public, which permits the development profile and the baseline without privacy. Every
demonstration creates its own sites with their own budgets, and never refunds another demonstration's budgets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from aegis.demo.randhie_columns import DATASET_ID, schema_for
from aegis.demo.randhie_data import PreparedSite, prepare_held_out, prepare_sites
from aegis.demo.recipe import DELTA, MAX_UPDATE_NORM, DemoOptions, private_job
from aegis.federation import FederationConfig, FederationFolder
from aegis.runtimes import create_site
from aegis.studies import SITE_COMMENTS, Study, commented, created_whole, declare_evaluation_set, write_study
from coreason_enclave.attestation import AttestationPolicy
from coreason_enclave.configuration import read_toml
from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.datasets import DataDictionary
from coreason_enclave.policy import LineagePolicy, SiteConfig, SitePolicy
from coreason_enclave.schemas import AggregationStrategy, Aggregator, Profile
from coreason_enclave.system import replace_file

DISJOINT_UNITS = "the study's designers: every family was enrolled at one site; no person in this file is at two sites"

OPTIONS = "demo.json"
"""File of a demonstration's study: the options of the command that created the study."""

_HEAD = (
    "# The demonstration: SIMULATED sites on this machine, with the public rows of a real study.\n"
    "# docs/JOBS.md explains every field. `aegis run` on this folder runs the job once more, as a run of its own.\n\n"
)
_KEYS = "keys"
_LINEAGE_ALLOWANCE = 1.5
"""Budget per dataset in units of the job's epsilon: room for one job, not for a second.

A job's Rényi cost exceeds its epsilon by a tenth.
"""


def create_demo_study(folder: Path, options: DemoOptions) -> Study:
    """Create the study in ``folder``, which appears whole or not at all.

    Raises:
        InvalidStudy: the folder exists, or cannot be made.
        ConfigurationError: the data is missing or has a wrong hash.
    """
    with created_whole(folder) as staging:
        create_demo_federation(staging, options)
        write_study(staging, private_job(options), DataDictionary.of(schema_for(options.unit)), head=_HEAD)
        replace_file(staging / OPTIONS, f"{json.dumps(options.to_dict(), indent=2, sort_keys=True)}\n".encode())
    return Study(folder)


def create_demo_federation(path: Path, options: DemoOptions) -> FederationFolder:
    """Create the federation of the simulated sites in ``path``, with the public held-out rows beside them."""
    federation = FederationFolder(path)
    coordinator_key = federation.signer().public_hex
    prepared = prepare_sites(path / "sites", sites=options.sites, unit=options.unit)
    keys = {site.site_id: _key_of(path / "sites" / site.site_id) for site in prepared}  # first: each policy names all
    for site in prepared:
        own = path / "sites" / site.site_id
        create_site(own, _config(site, options, coordinator_key, keys))
        replace_file(own / "site.toml", commented(read_toml(own / "site.toml"), SITE_COMMENTS).encode())
    rows = Study(path).held_out_rows
    prepare_held_out(rows, options.unit)
    declare_evaluation_set(federation, rows, DATASET_ID)
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
