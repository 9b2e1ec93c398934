"""The starting point of a training loop: the job's model with the global weights, its loss, and a data loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.models import build, load_weights
from coreason_enclave.privacy.training import TrainingTask


@dataclass(frozen=True)
class TrainingInputs:
    """Fresh, not yet private inputs for one task; attach a :class:`~coreason_enclave.privacy.PrivacyGuard` to them.

    ``loader`` yields ``(features, labels)`` with one row per batch.
    """

    model: torch.nn.Module
    loader: DataLoader[Any]
    criterion: torch.nn.Module


def training_inputs(task: TrainingTask) -> TrainingInputs:
    """Return fresh inputs for ``task``.

    Raises:
        JobRejected: the architecture is unknown.
        ConfigurationError: the global weights belong to another architecture.
    """
    model = build(task.job.model_arch, task.job.model_args, task.job.task)
    load_weights(model.module, task.base)
    rows = TensorDataset(torch.tensor(task.dataset.features), torch.tensor(task.dataset.labels))
    return TrainingInputs(model.module, DataLoader(rows, batch_size=1), model.criterion)
