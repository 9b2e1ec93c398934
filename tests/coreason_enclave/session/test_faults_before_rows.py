"""Every fault of an order that no row has to be read for is found before anything is reserved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.models import initial_weights, registry
from coreason_enclave.schemas import Task
from coreason_enclave.wire.updates import SealedMessage, with_correction

Federation = Any


def normed(in_features: int) -> torch.nn.Module:
    """A model that mixes rows."""
    return torch.nn.Sequential(torch.nn.Linear(in_features, 2), torch.nn.BatchNorm1d(2, track_running_stats=False))


class Remembers(torch.nn.Module):
    """A linear model with a buffer."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(in_features, 2)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.linear(rows)
        return outputs


@pytest.fixture(autouse=True)
def models_of_the_sites_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    for name, builder in {"Normed": normed, "Remembers": Remembers}.items():
        registry.register(name, builder, task=Task.MULTICLASS)


def schema_of(site: Any) -> Path:
    return Path(site.folder) / "data/clinic/visits/dataset.toml"


def rewritten(old: str, new: str) -> Callable[[Any], None]:
    def change(site: Any) -> None:
        text = schema_of(site).read_text()
        assert old in text
        schema_of(site).write_text(text.replace(old, new))

    return change


def short_key(site: Any) -> None:
    keys = Path(site.folder) / "keys" / "jobs"
    keys.parent.mkdir(exist_ok=True)
    keys.write_text("a file where the folder of keys should be")


def with_base(change: Callable[[dict[str, Any]], object]) -> Callable[[Federation], SealedMessage]:
    def make(federation: Federation) -> SealedMessage:
        base = federation.weights(0.5)
        change(base)
        return federation.order(federation.job(), base)

    return make


def of_model(arch: str, **args: int) -> Callable[[Federation], SealedMessage]:
    def make(federation: Federation) -> SealedMessage:
        job = federation.job(model_arch=arch, model_args=args)
        return federation.order(job, initial_weights(arch, args))

    return make


def correction(value: float) -> Callable[[Federation], SealedMessage]:
    def make(federation: Federation) -> SealedMessage:
        job = federation.job(strategy="SCAFFOLD", momentum=0.0)
        return federation.order(job, with_correction(federation.weights(), federation.weights(value)))

    return make


def untouched(site: Any) -> None: ...


def plain(federation: Federation) -> SealedMessage:
    order: SealedMessage = federation.order(federation.job())
    return order


FAULTS: dict[str, tuple[Callable[[Any], None], Callable[[Federation], SealedMessage], Reason]] = {
    "a base weight that is NaN": (
        untouched,
        with_base(lambda base: base["linear.bias"].fill(np.nan)),
        Reason.NON_FINITE,
    ),
    "a base weight that is infinite": (
        untouched,
        with_base(lambda base: base["linear.weight"].__setitem__((0, 1), -np.inf)),
        Reason.NON_FINITE,
    ),
    "a base model of other shapes": (
        untouched,
        with_base(lambda base: base.update({"linear.bias": np.zeros(2, np.float32)})),
        Reason.WRONG_SHAPES,
    ),
    "a base model with a tensor more": (
        untouched,
        with_base(lambda base: base.update({"linear.more": np.zeros(2, np.float32)})),
        Reason.WRONG_SHAPES,
    ),
    "a correction that is infinite": (untouched, correction(np.inf), Reason.NON_FINITE),
    "a label that is no class, under a model that predicts classes": (
        rewritten("classes = 2", 'task = "count"\nhigh = 9'),
        plain,
        Reason.WRONG_SHAPES,
    ),
    "a model for other examples": (untouched, of_model("SimpleMLP", in_features=4), Reason.WRONG_SHAPES),
    "a model with fewer outcomes than classes": (
        rewritten("classes = 2", "classes = 3"),
        of_model("SimpleMLP", in_features=3, classes=2),
        Reason.WRONG_SHAPES,
    ),
    "a model that mixes rows": (untouched, of_model("Normed", in_features=3), Reason.UNSAFE_TRAINING),
    "a model with a buffer": (untouched, of_model("Remembers", in_features=3), Reason.UNSAFE_TRAINING),
    "arguments that no model has": (
        untouched,
        lambda federation: federation.order(federation.job(model_args={"in_features": 3, "depth": 2})),
        Reason.UNSUPPORTED,
    ),
    "a dataset that is not there": (
        lambda site: shutil.rmtree(schema_of(site).parent),
        plain,
        Reason.DATASET_UNKNOWN,
    ),
    "a dataset without a declaration": (lambda site: schema_of(site).unlink(), plain, Reason.DATASET_UNKNOWN),
    "a dataset without rows": (
        lambda site: schema_of(site).with_name("rows.csv").unlink(),
        plain,
        Reason.DATASET_UNKNOWN,
    ),
    "a declaration that is no TOML": (lambda site: schema_of(site).write_text("= ="), plain, Reason.DATASET_SCHEMA),
    "a declaration of another dataset": (
        rewritten("clinic/visits", "clinic/scans"),
        plain,
        Reason.DATASET_SCHEMA,
    ),
    "rows of another unit than is registered": (
        rewritten('unit_column = "patient"\n', ""),
        plain,
        Reason.DATASET_SCHEMA,
    ),
    "public rows that are registered as private": (
        rewritten("public = true", "public = false"),
        plain,
        Reason.DATASET_SCHEMA,
    ),
    "no place for the job's key": (short_key, plain, Reason.CONFIGURATION),
}


@pytest.mark.parametrize("what", FAULTS)
def test_nothing_is_reserved_for(what: str, federation: Federation) -> None:
    spoil, make, reason = FAULTS[what]
    architectures = ["LogisticRegression", "SimpleMLP", "Normed", "Remembers"]
    strategies = ["FED_AVG", "FED_PROX", "SCAFFOLD"]
    site = federation.create(policy={"model_archs": architectures, "strategies": strategies})
    spoil(site)
    before = site.ledger_entries()
    opened = site.open(clock=federation.clock)
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(make(federation))
    opened.close()
    assert refused.value.reason is reason
    assert site.ledger_entries() == before
    assert [(line["outcome"], line["reason"]) for line in site.log()] == [("refused", reason.value)]
