"""Losses and predictions by task: how outputs of shape (n, outputs) meet labels.

===========  ==========================  =======================  ====================================================
task         labels                      outputs                  loss of a row
===========  ==========================  =======================  ====================================================
binary       int64 (n,), 0 or 1          1 logit, or 2            cross-entropy
multiclass   int64 (n,), below classes   1 logit a class          cross-entropy
multilabel   float32 (n, k), 0 or 1      k logits                 mean binary cross-entropy over the k labels
regression   float32 (n,)                1 value                  squared, absolute or Huber's (1964)
count        float32 (n,), 0 or more     1 logarithm of a rate    Poisson's negative log-likelihood without constants
survival     int64 (n, 2): s, e          1 logit an interval      binary cross-entropy over the intervals at risk
===========  ==========================  =======================  ====================================================

Survival is in discrete time: a row lived through its first ``s`` intervals, and had the event in the next interval if
``e`` is 1. The likelihood is a product over rows and intervals (Singer and Willett, "It's About Time", 1993), which
Cox's partial likelihood is not: a clipped sum of rows' gradients needs such a product.

A batch's loss is the sum of its rows' weighted losses over the number of rows. PyTorch's own ``weight=`` divides by the
batch's sum of weights, which makes one row's gradient depend on the labels of the other rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from coreason_enclave.schemas import RegressionLoss, Task, TaskConfig

MAX_LOG_RATE = 15.0
"""A count's log rate counts as at most this, and at least its negative: exp(15) is 3.3 million."""


class TaskLoss(nn.Module):
    """The mean of the rows' losses, as a criterion: ``loss(outputs, labels)``.

    Args:
        config: the task, its loss and its class weights.
        reduction: ``mean``, ``sum`` or ``none``, as in PyTorch; ``none`` gives shape (n,).
    """

    def __init__(self, config: TaskConfig, *, reduction: str = "mean") -> None:
        super().__init__()
        self._config, self._reduction = config, reduction

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        rows = self._rows(outputs, labels)
        if self._config.class_weights is not None:
            rows = rows * torch.tensor(self._config.class_weights, dtype=rows.dtype)[labels]
        return rows if self._reduction == "none" else rows.sum() if self._reduction == "sum" else rows.mean()

    def _rows(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        truth = labels.to(outputs.dtype)
        match self._config.kind:
            case Task.BINARY if outputs.shape[1] == 1:
                return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), truth, reduction="none")
            case Task.BINARY | Task.MULTICLASS:
                return functional.cross_entropy(outputs, labels, reduction="none")
            case Task.MULTILABEL:
                return functional.binary_cross_entropy_with_logits(outputs, truth, reduction="none").mean(1)
            case Task.REGRESSION:
                return self._regression(outputs.squeeze(1), truth)
            case Task.COUNT:
                log_rate = outputs.squeeze(1).clamp(-MAX_LOG_RATE, MAX_LOG_RATE)
                return functional.poisson_nll_loss(log_rate, truth, log_input=True, full=False, reduction="none")
            case Task.SURVIVAL:
                return _survival(outputs, labels)

    def _regression(self, predicted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        match self._config.loss:
            case RegressionLoss.ABSOLUTE:
                return functional.l1_loss(predicted, labels, reduction="none")
            case RegressionLoss.HUBER:
                return functional.huber_loss(predicted, labels, reduction="none", delta=self._config.huber_delta or 1.0)
            case _:
                return functional.mse_loss(predicted, labels, reduction="none")


def _survival(hazards: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of each row: intervals lived through, then the event's interval if any."""
    lived, event = labels[:, :1], labels[:, 1:]
    interval = torch.arange(hazards.shape[1])
    here = (interval == lived) & (event == 1)
    at_risk = (interval < lived) | here
    losses = functional.binary_cross_entropy_with_logits(hazards, here.to(hazards.dtype), reduction="none")
    return (losses * at_risk).sum(1)


def predicted(config: TaskConfig, outputs: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return predictions from outputs of shape (n, outputs), computed in float64.

    Returns:
        - binary, multiclass: probabilities, (n, classes);
        - multilabel: a probability for each label, (n, k);
        - regression: the value, in the label's scaled unit, (n,);
        - count: the rate, (n,);
        - survival: the probability to live through each interval and all before it, (n, intervals).
    """
    return np.asarray(_predicted(config.kind, outputs.double()).numpy())


def _predicted(kind: Task, values: torch.Tensor) -> torch.Tensor:
    match kind:
        case Task.BINARY | Task.MULTICLASS:
            if values.shape[1] == 1:  # softmax over (0, z) is (1 - sigmoid(z), sigmoid(z))
                values = torch.cat([torch.zeros_like(values), values], dim=1)
            return torch.softmax(values, dim=1)
        case Task.MULTILABEL:
            return torch.sigmoid(values)
        case Task.REGRESSION:
            return values[:, 0]
        case Task.COUNT:
            return torch.exp(values[:, 0].clamp(-MAX_LOG_RATE, MAX_LOG_RATE))
        case Task.SURVIVAL:
            return torch.exp(functional.logsigmoid(-values).cumsum(1))
