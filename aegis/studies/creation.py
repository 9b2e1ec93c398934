"""Creates a study from its owner's files: simulated sites on this machine, their declarations, and the job.

Everything here is SIMULATED: the owner's rows stand for the rows of sites that would never show them. Bounds and
categories are suggested from these rows, which real sites must not do, as every ``dataset.toml`` here says.

The sites are registered as public, under profile ``development``, which alone accepts simulated attestation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aegis.errors import InvalidStudy
from aegis.federation import FederationConfig, FederationFolder
from aegis.runtimes import create_site
from aegis.studies.array_files import SplitArrays, array_declaration, split_arrays
from aegis.studies.commented import DATASET_COMMENTS, SITE_COMMENTS, commented
from aegis.studies.held_out import declare_evaluation_set, write_groups
from aegis.studies.image_split import SplitImages, image_declaration, split_images
from aegis.studies.splitting import HELD_OUT, SplitPlan, SplitRows, split_rows
from aegis.studies.study import write_study
from coreason_enclave.attestation import AttestationPolicy
from coreason_enclave.configuration import read_toml
from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.datasets import (
    DataDictionary,
    DataFormat,
    DatasetSchema,
    Label,
    LabelTask,
    Suggestion,
    parse_schema,
    suggest,
    suggest_label,
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
from coreason_enclave.system import publish, replace_file

_KEYS = "keys"
_ALLOWANCE = 20.0
"""Budget of each simulated dataset, in units of the first job's epsilon: room for trying out."""
_MAX_UPDATE_NORM = 150.0
_AVERAGED = 5
_SMALLEST_SIDE = 4
LABEL_TASKS = {
    Task.BINARY: LabelTask.CLASSES,
    Task.MULTICLASS: LabelTask.CLASSES,
    Task.MULTILABEL: LabelTask.LABELS,
    Task.REGRESSION: LabelTask.NUMBER,
    Task.COUNT: LabelTask.COUNT,
    Task.SURVIVAL: LabelTask.SURVIVAL,
}
MODELS = ("Linear", "MLP", "TabularResNet", "CNN")
"""The architectures whose arguments follow from the data."""


@dataclass(frozen=True)
class StudyOptions:
    """The choices of ``aegis init``; see its ``--help``.

    Attributes:
        model: None: CNN for images that are large enough, otherwise Linear.
        task: None: classes for a label of few whole numbers or words, a number otherwise.
        cuts: the ends of a survival label's intervals; None: suggested from rows.
        review: returns the suggestion as its owner wants it; called before any file of the study exists.
    """

    name: str
    split: SplitPlan
    task: Task | None = None
    epsilon: float = 3.0
    rounds: int = 20
    dataset_id: str = "study/rows"
    model: str | None = None
    cuts: tuple[float, ...] | None = None
    review: Callable[[Suggestion], Suggestion] = lambda suggestion: suggestion

    @property
    def label_task(self) -> LabelTask | None:
        """The label's task in ``dataset.toml``; None if it is to be suggested."""
        return None if self.task is None else LABEL_TASKS[self.task]


@dataclass(frozen=True)
class CreatedStudy:
    """A new study: its folder, the job, the declaration, and the split; arrays have no suggestion to review."""

    folder: Path
    job: FederationJob
    schema: DatasetSchema
    suggestion: Suggestion | None
    split: SplitRows | SplitArrays


def create_study(folder: Path, options: StudyOptions) -> CreatedStudy:
    """Create ``folder`` with its simulated sites; nothing is written where it exists already.

    Raises:
        InvalidStudy: the folder exists, or the files do not make a study.
        DatasetRejected: a file is not a table with the label, or no column is left to learn from.
    """
    with created_whole(folder) as staging:
        schema, suggestion, split = _split(staging, options, least_sites=2)
        _place_rows(staging, options, schema, split)
        delta = delta_for(max(split.units(site) for site in split.sites))
        job = job_for(schema, options, sites=len(split.sites), delta=delta)
        _create_federation(FederationFolder(staging), options, job, split)
        head = (
            f"# The study {options.name}: SIMULATED sites on this machine. `aegis run` on this folder runs the job.\n"
            "# docs/JOBS.md explains every field. A changed job is a new run; earlier runs stay as they are.\n\n"
        )
        write_study(staging, job, DataDictionary.of(schema), head=head)
    return CreatedStudy(folder, job, schema, suggestion, split)


@contextmanager
def created_whole(folder: Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``folder`` at the end of the block, and vanishes if the block fails.

    Raises:
        InvalidStudy: ``folder`` exists and is not empty, or cannot be made.
    """
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise InvalidStudy(f"{folder} exists: choose another folder; `aegis run {folder}` runs the study in it")
    staging = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        publish(staging, folder)
    except OSError as error:
        raise InvalidStudy(f"{folder} cannot be made: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def suggested_dictionary(options: StudyOptions) -> tuple[DatasetSchema, DataDictionary]:
    """Return the declaration that the owner's files suggest, after her review, and its dictionary; keep no row.

    Raises:
        InvalidStudy, DatasetRejected: as :func:`create_study`.
    """
    with TemporaryDirectory(prefix="aegis-init-") as folder:
        schema = _split(Path(folder), options, least_sites=1)[0]
    return schema, DataDictionary.of(schema)


def _split(
    folder: Path, options: StudyOptions, *, least_sites: int
) -> tuple[DatasetSchema, Suggestion | None, SplitRows | SplitArrays]:
    """Split the rows into ``folder/split``, and let the owner review what they suggest."""
    plan, suggestion = options.split, None
    split: SplitRows | SplitArrays
    if plan.files[0].is_dir():
        split = split_images(plan, folder / "split")
        _require_sites(split, least_sites)
        draft = suggest_label(list(split.columns.values()), task=options.label_task, cuts=options.cuts)
        suggestion = _reviewed(options, draft, split, least_sites)
        document = _declared(options, suggestion, split)
    elif plan.image_column:
        raise InvalidStudy(f"{plan.files[0]} is a file: --image-column goes with folders of images")
    elif plan.open(plan.files[0]).format is DataFormat.NPZ:
        split = split_arrays(plan, folder / "split", options.label_task)
        _require_sites(split, least_sites)
        document = array_declaration(options.dataset_id, split)
    else:
        split = split_rows(plan, folder / "split")
        _require_sites(split, least_sites)
        suggestion = _reviewed(options, _suggestion(options, split), split, least_sites)
        document = _declared(options, suggestion, split)
    return parse_schema(_written(document)), suggestion, split


def _reviewed(options: StudyOptions, draft: Suggestion, split: SplitRows, sites: int) -> Suggestion:
    """Return the draft as its owner wants it; nobody is asked about a draft that makes no job."""
    job_for(parse_schema(_written(_declared(options, draft, split))), options, sites=sites, delta=1e-9)
    return options.review(draft)


def _require_sites(split: SplitRows | SplitArrays, least: int) -> None:
    if len(split.sites) < least:
        raise InvalidStudy("a federation needs two sites: give --data for each site, or --site-column")


def _suggestion(options: StudyOptions, split: SplitRows) -> Suggestion:
    plan = options.split
    return suggest(
        list(split.columns.values()),
        label=plan.label,
        person=plan.person,
        task=options.label_task,
        also=plan.also,
        cuts=options.cuts,
    )


def _place_rows(folder: Path, options: StudyOptions, schema: DatasetSchema, split: SplitRows | SplitArrays) -> None:
    """Move the split rows to the sites' folders, each with its declaration."""
    declaration = _written(schema.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
    for part in split.rows:
        root = folder / (HELD_OUT if part == HELD_OUT else f"sites/{part}") / "data" / options.dataset_id
        root.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(split, SplitImages):
            publish(folder / "split" / part, root)
        else:
            root.mkdir()
            publish(folder / "split" / f"{part}{Path(schema.file).suffix}", root / schema.file)
        (root / "dataset.toml").write_bytes(declaration)
    shutil.rmtree(folder / "split")
    if HELD_OUT in split.rows:
        declare_evaluation_set(FederationFolder(folder), folder / HELD_OUT / "data", options.dataset_id)
        if isinstance(split, SplitRows) and split.groups:
            write_groups(folder / HELD_OUT / "data", split.groups)


def _declared(options: StudyOptions, suggestion: Suggestion, split: SplitRows) -> dict[str, Any]:
    if isinstance(split, SplitImages):
        return image_declaration(options.dataset_id, options.split, split, suggestion.label)
    return {
        "version": 1,
        "dataset_id": options.dataset_id,
        "format": "csv",
        "file": "rows.csv",
        "public": True,
        **({"unit_column": options.split.person} if options.split.person else {}),
        "label": dict(suggestion.label),
        "features": [{**feature, "why": suggestion.remarks[feature["name"]]} for feature in suggestion.features],
    }


def _written(document: Mapping[str, Any]) -> bytes:
    head = (
        "# SUGGESTED FROM ROWS: ranges, categories and classes below were computed from this study's rows, except\n"
        "# where an entry says otherwise. That is fine for a simulation. At a real site it would publish private\n"
        "# values: write what is publicly known. docs/DATASETS.md explains every entry.\n"
    )
    return head.encode() + commented(document, DATASET_COMMENTS).encode()


def delta_for(units: int) -> float:
    """Return the largest power of ten below a tenth of one over ``units``."""
    return float(f"1e-{len(str(10 * units))}")


def job_for(schema: DatasetSchema, options: StudyOptions, *, sites: int, delta: float) -> FederationJob:
    """Return the first job of a study: plain averaging, DP-SGD, a recipe that learns on small tables.

    Raises:
        InvalidStudy: the label is of another kind than ``options.task`` says, or the model does not fit the data.
    """
    kind, outputs = _task(schema.label)
    if options.task is not None and options.task is not kind:
        raise InvalidStudy(f"the label {options.split.label!r} makes a {kind} task, and --task says {options.task}")
    model = options.model or _usual_model(schema)
    return FederationJob(
        job_id=options.name,
        min_clients=sites,
        rounds=options.rounds,
        strategy=AggregationStrategy.FED_AVG,
        dataset_id=options.dataset_id,
        model_arch=model,
        model_args=_model_args(model, schema.sample_shape, outputs),
        task=TaskConfig(kind=kind),
        local_steps=5,
        learning_rate=0.3,
        momentum=0.8,
        average_last_rounds=min(_AVERAGED, options.rounds),
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
    return next(task for task, kind in LABEL_TASKS.items() if kind is label.task), label.outputs


def _usual_model(schema: DatasetSchema) -> str:
    """Return the architecture for data of this form: the CNN halves an image twice, so a smaller one does not fit."""
    fits = schema.format is DataFormat.IMAGES and min(schema.sample_shape[1:]) >= _SMALLEST_SIDE
    return "CNN" if fits else "Linear"


def _model_args(model: str, shape: tuple[int, ...], outputs: int) -> dict[str, Any]:
    if model == "CNN":
        if len(shape) != 3:
            raise InvalidStudy(f"CNN needs arrays of shape (channels, height, width), got {shape}: take Linear or MLP")
        return {"in_channels": shape[0], "height": shape[1], "width": shape[2], "outputs": outputs}
    if model == "TabularResNet" and len(shape) != 1:
        raise InvalidStudy(f"TabularResNet needs a table, got arrays of shape {shape}: take Linear or MLP")
    return {"in_features": prod(shape), "outputs": outputs}


def _create_federation(
    federation: FederationFolder, options: StudyOptions, job: FederationJob, split: SplitRows | SplitArrays
) -> None:
    delta = job.privacy.delta or 0.0
    keys = {
        site: load_or_create_signer(federation.path / "sites" / site / _KEYS / "signing.key").public_hex
        for site in split.sites
    }
    for site in split.sites:
        config = _site_config(site, options, job, federation.signer().public_hex, keys, split.units(site))
        folder = federation.path / "sites" / site
        create_site(folder, config)
        _comment(folder / "site.toml", SITE_COMMENTS)
    federation.create(
        FederationConfig(
            profile=Profile.DEVELOPMENT,
            delta=delta,
            public_keys=keys,
            attester="simulated",
            disjoint_units=_disjoint(split),
        )
    )


def _comment(path: Path, comments: Mapping[str, str]) -> None:
    """Add comments to a TOML file that a program wrote."""
    replace_file(path, commented(read_toml(path), comments).encode())


def _disjoint(split: SplitRows | SplitArrays) -> str | None:
    """Return who claims that no person is at two sites; None if one is, or if arrays name persons."""
    if isinstance(split, SplitArrays):
        return None if split.has_units else "every example is a person of its own in this simulation"
    if not split.persons:
        return "every row is a person of its own in this simulation"
    return "aegis init found no person in two sites' files" if split.sites_are_disjoint else None


def _site_config(
    site: str,
    options: StudyOptions,
    job: FederationJob,
    coordinator_key: str,
    keys: Mapping[str, str],
    persons: int,
) -> SiteConfig:
    allowance, delta = min(_ALLOWANCE * options.epsilon, 1000.0), job.privacy.delta or 0.0
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
