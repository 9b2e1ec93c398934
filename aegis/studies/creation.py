"""Creates a study from its owner's files: simulated sites on this machine, their declarations, and the job.

Everything here is SIMULATED: the owner's rows stand for the rows of sites that would never show them. Bounds and
categories are suggested from these rows, which real sites must not do, as every ``dataset.toml`` here says.

The sites are registered as public, under profile ``development``, which alone accepts simulated attestation.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from aegis.errors import InvalidStudy
from aegis.federation import EvaluationSet, FederationConfig, FederationFolder
from aegis.runtimes import create_site
from aegis.studies.splitting import HELD_OUT, SplitPlan, SplitRows, split_rows
from aegis.studies.study import write_study
from coreason_enclave.attestation import AttestationPolicy
from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.datasets import (
    DataDictionary,
    DatasetSchema,
    Label,
    LabelTask,
    Suggestion,
    open_dataset,
    parse_schema,
    suggest,
)
from coreason_enclave.policy import LineagePolicy, SiteConfig, SitePolicy
from coreason_enclave.schemas import (
    AggregationStrategy,
    Aggregator,
    FederationJob,
    Mechanism,
    PrivacyConfig,
    PrivacyUnit,
    Profile,
    Task,
    TaskConfig,
)

_KEYS = "keys"
_ALLOWANCE = 20.0
"""Budget of each simulated dataset, in units of the first job's epsilon: room for trying out."""
_MAX_UPDATE_NORM = 150.0
_TASKS = {
    LabelTask.LABELS: Task.MULTILABEL,
    LabelTask.NUMBER: Task.REGRESSION,
    LabelTask.COUNT: Task.COUNT,
    LabelTask.SURVIVAL: Task.SURVIVAL,
}


@dataclass(frozen=True)
class StudyOptions:
    """The choices of ``aegis init``; see its ``--help``."""

    name: str
    split: SplitPlan
    task: LabelTask | None = None
    epsilon: float = 3.0
    rounds: int = 20
    dataset_id: str = "study/rows"


@dataclass(frozen=True)
class CreatedStudy:
    """A new study: its folder, the job, the declaration, and what was suggested from rows."""

    folder: Path
    job: FederationJob
    schema: DatasetSchema
    suggestion: Suggestion
    split: SplitRows


def create_study(folder: Path, options: StudyOptions) -> CreatedStudy:
    """Create ``folder`` with its simulated sites; nothing is written where it exists already.

    Raises:
        InvalidStudy: the folder exists, or the files do not make a study.
        DatasetRejected: a file is not a table with the label, or no column is left to learn from.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InvalidStudy(f"{folder} exists: choose another folder; `aegis run {folder}` runs the study in it")
    staging = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        created = _create(staging, options)
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return CreatedStudy(folder, created.job, created.schema, created.suggestion, created.split)


def _create(folder: Path, options: StudyOptions) -> CreatedStudy:
    split = split_rows(options.split, folder / "split")
    sites = sorted(split.rows.keys() - {HELD_OUT})
    if len(sites) < 2:
        raise InvalidStudy("a federation needs two sites: give --data for each site, or --site-column")
    suggestion = suggest(
        list(split.columns.values()), label=options.split.label, person=options.split.person, task=options.task
    )
    declaration = _declaration(options, suggestion)
    schema = parse_schema(declaration)
    federation = FederationFolder(folder)
    for part in (*sites, *([HELD_OUT] if HELD_OUT in split.rows else [])):
        root = folder / (HELD_OUT if part == HELD_OUT else f"sites/{part}") / "data"
        _place(root / options.dataset_id, folder / "split" / f"{part}.csv", declaration)
    shutil.rmtree(folder / "split")
    if HELD_OUT in split.rows:
        held_out = open_dataset(folder / HELD_OUT / "data", options.dataset_id)
        federation.save_evaluation_set(EvaluationSet(held_out.features, held_out.labels))
    delta = _delta(split, sites)
    job = _job(options, schema, sites, delta)
    _found(federation, options, job, {site: len(split.persons[site]) for site in sites}, delta)
    _write_study(folder, options, job, schema)
    return CreatedStudy(folder, job, schema, suggestion, split)


def _place(folder: Path, rows: Path, declaration: bytes) -> None:
    folder.mkdir(parents=True)
    rows.rename(folder / "rows.csv")
    (folder / "dataset.toml").write_bytes(declaration)


def _declaration(options: StudyOptions, suggestion: Suggestion) -> bytes:
    document: dict[str, Any] = {
        "version": 1,
        "dataset_id": options.dataset_id,
        "format": "csv",
        "file": "rows.csv",
        "public": True,
        **({"unit_column": options.split.person} if options.split.person else {}),
        "label": dict(suggestion.label),
        "features": [{**feature, "why": suggestion.remarks[feature["name"]]} for feature in suggestion.features],
    }
    head = (
        "# SUGGESTED FROM ROWS: every range, category and class below was computed from the rows of this study.\n"
        "# That is fine for a simulation. At a real site it would publish private values: write public ones.\n"
    )
    return head.encode() + tomli_w.dumps(document).encode()


def _delta(split: SplitRows, sites: Sequence[str]) -> float:
    """Return the largest power of ten below a tenth of one over the largest site's persons."""
    largest = max(len(split.persons[site]) for site in sites)
    return float(f"1e-{len(str(10 * largest))}")


def _job(options: StudyOptions, schema: DatasetSchema, sites: Sequence[str], delta: float) -> FederationJob:
    kind, outputs = _task(schema.label)
    return FederationJob(
        job_id=options.name,
        min_clients=len(sites),
        rounds=options.rounds,
        strategy=AggregationStrategy.FED_AVG,
        dataset_id=options.dataset_id,
        model_arch="Linear",
        model_args={"in_features": schema.sample_shape[0], "outputs": outputs},
        task=TaskConfig(kind=kind),
        local_steps=5,
        learning_rate=0.3,
        momentum=0.8,
        average_last_rounds=max(1, options.rounds // 4),
        max_update_norm=_MAX_UPDATE_NORM,
        privacy=PrivacyConfig(
            mechanism=Mechanism.DP_SGD,
            target_epsilon=options.epsilon,
            max_grad_norm=1.0,
            sample_rate=0.3,
            delta=delta,
            unit=schema.unit,
        ),
    )


def _task(label: Label) -> tuple[Task, int]:
    if label.task is LabelTask.CLASSES:
        binary = label.classes == 2
        return (Task.BINARY, 1) if binary else (Task.MULTICLASS, label.classes or 2)
    return _TASKS[label.task], label.outputs


def _found(
    federation: FederationFolder, options: StudyOptions, job: FederationJob, persons: Mapping[str, int], delta: float
) -> None:
    keys = {
        site: load_or_create_signer(federation.path / "sites" / site / _KEYS / "signing.key").public_hex
        for site in persons
    }
    for site, count in persons.items():
        config = _site_config(site, options, job, federation.signer().public_hex, keys, count, delta)
        create_site(federation.path / "sites" / site, config)
    federation.create(
        FederationConfig(
            profile=Profile.DEVELOPMENT,
            delta=delta,
            public_keys=keys,
            attester="simulated",
            disjoint_units=None if options.split.person else "every row is a person of its own in this simulation",
        )
    )


def _site_config(
    site: str,
    options: StudyOptions,
    job: FederationJob,
    coordinator_key: str,
    keys: Mapping[str, str],
    persons: int,
    delta: float,
) -> SiteConfig:
    allowance = min(_ALLOWANCE * options.epsilon, 1000.0)
    return SiteConfig(
        version=1,
        site_id=site,
        profile=Profile.DEVELOPMENT,
        data_root="data",
        keys=_KEYS,
        ledger="ledger.sqlite",
        audit="audit.jsonl",
        attester="simulated",
        policy=SitePolicy(
            coordinator_keys=(coordinator_key,),
            participants=dict(keys),
            model_archs=("CNN", "Linear", "MLP", "TabularResNet", "TextEmbedding"),
            strategies=tuple(AggregationStrategy),
            aggregators=tuple(Aggregator),
            min_clients=2,
            min_units=1,
            min_noise_multiplier=0.1,
            max_update_norm=_MAX_UPDATE_NORM,
            max_order_lifetime_s=3600,
            coordinator_attestation=AttestationPolicy.simulated_only(),
        ),
        lineages=(
            LineagePolicy(
                lineage=f"{site}/{options.name}",
                dataset_id=options.dataset_id,
                unit=job.privacy.unit or PrivacyUnit.RECORD,
                nominal_units=persons,
                public=True,
                epsilon=allowance,
                delta=delta,
                job_epsilon=allowance,
                job_delta=delta,
            ),
        ),
    )


def _write_study(folder: Path, options: StudyOptions, job: FederationJob, schema: DatasetSchema) -> None:
    head = (
        f"# The study {options.name}: SIMULATED sites on this machine. `aegis run` on this folder runs the job below.\n"
        "# docs/JOBS.md explains every field. A changed job is a new run; earlier runs stay as they are.\n\n"
    )
    write_study(folder, job, DataDictionary.of(schema), head=head)
