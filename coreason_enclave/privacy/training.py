"""The standard training loop: an ordinary PyTorch loop under a :class:`PrivacyGuard`, and its task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.datasets import SiteDataset
from coreason_enclave.errors import AttestationError, TrainingAborted
from coreason_enclave.models import build, load_weights, weights_of
from coreason_enclave.privacy.guard import PrivacyGuard
from coreason_enclave.privacy.scope import TrainingScope
from coreason_enclave.schemas import AttestationReport, FederationJob
from coreason_enclave.wire import Arrays, TrainedUpdate


def _nothing_attested() -> AttestationReport:
    raise AttestationError("attestation is available only within a session")


@dataclass(frozen=True)
class TrainingTask:
    """The inputs of one round of training. A trainer calls ``aborted`` between steps.

    ``trusted`` returns the attestation result that released the model. The call raises :class:`AttestationError` once
    the result has expired or this host can no longer prove itself.
    """

    job: FederationJob
    base: Arrays
    dataset: SiteDataset
    scope: TrainingScope
    aborted: Callable[[], bool]
    trusted: Callable[[], AttestationReport] = _nothing_attested


class Trainer(Protocol):
    """Turns a task into an update, inside the task's scope, already entered."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        """Return new weights minus base weights, with the privacy event of the steps."""
        ...


class LocalSgdTrainer:
    """Takes ``local_steps`` of SGD with momentum from the global weights; every round starts with zero momentum."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        """Train for the task's ``local_steps`` and return the update.

        Raises:
            PrivacyBudgetExceededError: the next step exceeds the budget and has not run.
            TrainingAborted: ``aborted`` returned True before a step.
        """
        job, dataset = task.job, task.dataset
        model = build(job.model_arch, job.model_args, job.task)
        load_weights(model.module, task.base)
        optimizer = torch.optim.SGD(model.module.parameters(), lr=job.learning_rate, momentum=job.momentum)
        rows = TensorDataset(torch.tensor(dataset.features), torch.tensor(dataset.labels))
        guard = PrivacyGuard(config=task.scope.config)
        module, private, loader = guard.attach(
            model=model.module, optimizer=optimizer, data_loader=DataLoader(rows, batch_size=1)
        )
        batches = iter(loader)
        for _ in range(job.local_steps):
            if task.aborted():
                raise TrainingAborted("the training must stop: the runtime cancelled the task")
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader)
                batch = next(batches)
            features, labels = batch
            private.zero_grad(set_to_none=True)
            model.criterion(module(features), labels).backward()
            private.step()
        guard.detach()
        trained = weights_of(module)
        delta = {name: trained[name] - task.base[name] for name in trained}
        return TrainedUpdate(delta, task.scope.event(), {})
