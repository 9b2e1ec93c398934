"""A site's own training loop is rehearsed on synthetic rows before anything is reserved, and refused there for free."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.privacy.training import TrainingTask
from coreason_enclave.wire.updates import TrainedUpdate
from tests.coreason_enclave.session.test_trainers import attached, difference

Federation = Any


class Loop:
    """An ordinary loop over the job's own loss, ``loss`` of it replaced."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        model, optimizer, loader, criterion = attached(task, task.job.privacy)
        done = 0
        while done < task.job.local_steps:
            for features, labels in loader:
                optimizer.zero_grad()
                self.loss(criterion, model, features, labels).backward()
                optimizer.step()
                done += 1
                if done == task.job.local_steps:
                    break
        return TrainedUpdate(difference(task, model), task.scope.event(), {})

    def loss(self, criterion: Any, model: Any, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = criterion(model(features), labels)
        return loss


class WeighsByFrequency(Loop):
    def loss(self, criterion: Any, model: Any, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        share = labels.float().mean()
        weight = torch.where(labels > 0, 1 / share, 1 / (1 - share))
        single = torch.nn.functional.binary_cross_entropy_with_logits(
            model(features).squeeze(-1), labels.float(), reduction="none"
        )
        return (weight * single).mean()


class Sums(Loop):
    def loss(self, criterion: Any, model: Any, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = model(features).squeeze(-1)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")


class CentresTheFeatures(Loop):
    def loss(self, criterion: Any, model: Any, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().loss(criterion, model, features - features.mean(0), labels)


class SwallowsTheEnd(Loop):
    def train(self, task: TrainingTask) -> TrainedUpdate:
        with contextlib.suppress(BaseException):
            return super().train(task)
        return TrainedUpdate(dict(task.base), task.scope.event(), {})


class CatchesEveryException(Loop):
    """Goes on after a failure, as a loop may: the end of its rehearsal is none."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        try:
            return super().train(task)
        except Exception:  # noqa: BLE001 - that is the point
            return TrainedUpdate(dict(task.base), task.scope.event(), {})


REFUSED: dict[str, tuple[type[Loop], str]] = {
    "that weighs classes by their frequency": (WeighsByFrequency, "the gradient of the loss depends on other rows"),
    "that sums": (Sums, "the loss sums over the batch"),
    "that centres the features": (CentresTheFeatures, "the loop's input to the model depends"),
    "that swallows the end": (SwallowsTheEnd, "caught RehearsalEnded"),
}


@pytest.mark.parametrize(("loop", "message"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_spent_and_no_row_is_read_for_a_loop(loop: type[Loop], message: str, federation: Federation) -> None:
    site = federation.create()
    (site.folder / "data/clinic/visits/rows.csv").write_text("no table of rows")
    opened = site.open(clock=federation.clock, trainer=loop())
    before, keys = site.ledger_entries(), sorted((site.folder / "keys").rglob("*"))
    with pytest.raises(EnclaveError, match=message) as refused:
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert refused.value.reason is Reason.UNSAFE_TRAINING
    assert site.ledger_entries() == before
    assert sorted((site.folder / "keys").rglob("*")) == keys
    assert [line["outcome"] for line in site.log()] == ["refused"]


@pytest.mark.parametrize("loop", [Loop, CatchesEveryException])
def test_an_ordinary_loop_takes_all_its_steps_on_real_rows(loop: type[Loop], federation: Federation) -> None:
    site = federation.create()
    opened = site.open(clock=federation.clock, trainer=loop())
    assert opened.session.run(federation.order(federation.job())).arrays
    opened.close()
    assert site.ledger_entries()[-1]["event"]["steps"] == 4
