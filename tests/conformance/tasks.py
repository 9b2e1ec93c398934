"""One dataset and one job for each task: two sites that hold all of the datasets, and a public evaluation set for each.

The rows are random numbers with a signal, from a seed of their own for each site. The labels come in every form that a
table can declare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aegis.federation.registry import EvaluationSet, FederationFolder
from coreason_enclave.datasets.schema import DatasetSchema, parse_schema
from tests.conformance.runtimes import Sites, create
from tests.conformance.sites import WILLING

PERSONS = 20
_INPUTS = ("age", "dose")

Columns = dict[str, Any]


@dataclass(frozen=True)
class TaskCase:
    """A task: the ``[label]`` of its datasets, the label columns of (n,) scores, and what its job says of the task."""

    label: str
    columns: Callable[[np.ndarray, np.random.Generator], Columns]
    task: Mapping[str, Any]
    outputs: int
    measures: frozenset[str]
    arch: str = "Linear"
    args: Mapping[str, int] = field(default_factory=dict)


def _thirds(score: np.ndarray, _: np.random.Generator) -> Columns:
    return {"y": np.digitize(score, [-0.5, 0.5])}


def _survival(score: np.ndarray, random: np.random.Generator) -> Columns:
    time, end = np.round(random.exponential(np.exp(1.0 - score))), np.round(random.uniform(1, 6, len(score)))
    return {"days": np.minimum(time, end), "died": (time <= end).astype(np.int64)}


_CLASSES = frozenset({"accuracy", "loss"})

TASKS: dict[str, TaskCase] = {
    "binary": TaskCase(
        'column = "y"\nvalues = ["no", "yes"]',
        lambda score, _: {"y": np.where(score > 0, "yes", "no")},
        {"kind": "binary"},
        outputs=1,
        measures=_CLASSES | {"auc"},
    ),
    "multiclass": TaskCase(
        'column = "y"\nclasses = 3',
        _thirds,
        {"kind": "multiclass"},
        outputs=3,
        measures=_CLASSES,
        arch="MLP",
        args={"hidden": 4},
    ),
    "multilabel": TaskCase(
        'task = "labels"\ncolumns = ["a", "b"]',
        lambda score, random: {"a": score > 0, "b": score + random.normal(0, 1, len(score)) > 0.3},
        {"kind": "multilabel"},
        outputs=2,
        measures=_CLASSES | {"auc"},
    ),
    "regression": TaskCase(
        'task = "number"\ncolumn = "y"\nlow = -3\nhigh = 3',
        lambda score, _: {"y": score},
        {"kind": "regression"},
        outputs=1,
        measures=frozenset({"rmse", "mae", "r2"}),
        arch="TabularResNet",
        args={"width": 4, "blocks": 1},
    ),
    "count": TaskCase(
        'task = "count"\ncolumn = "y"\nhigh = 9',
        lambda score, random: {"y": random.poisson(np.exp(score / 2))},
        {"kind": "count"},
        outputs=1,
        measures=frozenset({"deviance", "mae"}),
    ),
    "survival": TaskCase(
        'task = "survival"\ncolumn = "days"\nevent = "died"\ncuts = [1, 3, 5]',
        _survival,
        {"kind": "survival"},
        outputs=3,
        measures=frozenset({"concordance", "brier", "loss"}),
    ),
}

OPTIONS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "class weights of two": ("binary", {"kind": "binary", "class_weights": [0.5, 2.0]}),
    "class weights of three": ("multiclass", {"kind": "multiclass", "class_weights": [1.0, 0.25, 3.0]}),
    "absolute errors": ("regression", {"kind": "regression", "loss": "absolute"}),
    "Huber": ("regression", {"kind": "regression", "loss": "huber", "huber_delta": 0.1}),
}
"""Each option with a task, and a job's ``task`` with the option."""

SITES: Sites = {
    site: {
        "policy": {"model_archs": sorted({case.arch for case in TASKS.values()})},
        "lineages": [
            {
                "lineage": f"{site}/{name}",
                "dataset_id": f"tasks/{name}",
                "unit": "person",
                "nominal_units": PERSONS,
                "public": True,
                "epsilon": 20.0,
                "delta": 1e-5,
                "job_epsilon": 10.0,
                "job_delta": 1e-5,
            }
            for name in TASKS
        ],
    }
    for site in WILLING
}


def found(path: Path, federation_at: Callable[[Path], Any], names: tuple[str, ...] = tuple(TASKS)) -> None:
    """Found the sites below ``path`` with the datasets of the named tasks."""
    create(path, federation_at, SITES)
    for number, site in enumerate(SITES, 1):
        for name in names:
            folder = path / "sites" / site / "data" / "tasks" / name
            folder.mkdir(parents=True)
            (folder / "dataset.toml").write_text(_declaration(name))
            (folder / "rows.csv").write_text("\n".join(_lines(_rows(name, seed=number))) + "\n")


def evaluate_on(path: Path, name: str) -> None:
    """Make the federation below ``path`` measure each round on public rows of the task."""
    rows, schema = _rows(name, seed=0), declared(name)
    FederationFolder(path).save_evaluation_set(EvaluationSet(schema.scale(rows), schema.label.encode(rows)))


def declared(name: str) -> DatasetSchema:
    """Return the declaration of the task's datasets."""
    return parse_schema(_declaration(name).encode())


def job_changes(name: str, task: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a job of the task has, other than the quick job."""
    case = TASKS[name]
    return {
        "job_id": f"task-{name}",
        "dataset_id": f"tasks/{name}",
        "model_arch": case.arch,
        "model_args": {"in_features": len(_INPUTS), "outputs": case.outputs, **case.args},
        "task": dict(task or case.task),
        "learning_rate": 0.2,
    }


def _declaration(name: str) -> str:
    features = "".join(f'[[features]]\nname = "{column}"\nlow = -2\nhigh = 2\n' for column in _INPUTS)
    return (
        f'version = 1\ndataset_id = "tasks/{name}"\nformat = "csv"\nfile = "rows.csv"\npublic = true\n'
        f'unit_column = "patient"\n[label]\n{TASKS[name].label}\n{features}'
    )


def _rows(name: str, seed: int) -> Columns:
    random = np.random.default_rng([seed, *name.encode()])
    who = np.repeat(np.arange(PERSONS), random.integers(1, 4, PERSONS))
    inputs = np.round(random.uniform(-2, 2, (len(who), len(_INPUTS))), 4)
    score = np.round(inputs @ [1.0, -0.7] + random.normal(0, 0.3, len(who)), 4)
    labels = TASKS[name].columns(score, random)
    return {"patient": [f"p{one:02d}" for one in who], **dict(zip(_INPUTS, inputs.T, strict=True)), **labels}


def _lines(rows: Columns) -> Iterator[str]:
    yield ",".join(rows)
    for cells in zip(*rows.values(), strict=True):
        yield ",".join(map(str, cells))
