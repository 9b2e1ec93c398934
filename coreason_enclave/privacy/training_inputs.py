"""What a training loop starts from: the job's model with the global weights, its loss, and a loader over the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.models import build, load_weights
from coreason_enclave.privacy.training import TrainingTask

__all__ = ["TrainingInputs", "training_inputs"]


@dataclass(frozen=True)
class TrainingInputs:
    """Fresh for one task, nothing of it private yet: a :class:`~coreason_enclave.privacy.PrivacyGuard` is attached to
    it. ``loader`` yields ``(features, labels)`` of one row each."""

    model: torch.nn.Module
    loader: DataLoader[Any]
    criterion: torch.nn.Module


def training_inputs(task: TrainingTask) -> TrainingInputs:
    """The material of ``task``.

    Raises:
        JobRejected: an unknown architecture. ConfigurationError: weights of another one.
    """
    model = build(task.job.model_arch, task.job.model_args)
    load_weights(model.module, task.base)
    rows = TensorDataset(torch.tensor(task.dataset.features), torch.tensor(task.dataset.labels))
    return TrainingInputs(model.module, DataLoader(rows, batch_size=1), model.criterion)
