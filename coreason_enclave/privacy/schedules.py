"""An optimizer's hyperparameters, fixed at attach for every reserved step.

A learning rate computed from un-noised losses would show in the update. Values are therefore plain numbers, read once,
and a schedule runs to its end before the first row is read. No result of the loop reaches a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from coreason_enclave.errors import UnsafeTrainingError

Hyperparameters = list[dict[str, Any]]
"""Per parameter group: all entries except the parameters."""

Schedule = Callable[[Optimizer], LRScheduler]
"""Makes a torch learning rate scheduler: ``lambda optimizer: StepLR(optimizer, step_size=10)``."""

Plan = Callable[[int], Hyperparameters]
"""Returns the hyperparameters of a step, by its number from 0."""


def hyperparameters_of(optimizer: Optimizer) -> Hyperparameters:
    """Return the present values; raise :class:`UnsafeTrainingError` unless each is a plain number, word or flag."""
    groups = [{name: each for name, each in group.items() if name != "params"} for group in optimizer.param_groups]
    for group in groups:
        for name, value in group.items():
            if not _is_plain(value):
                raise UnsafeTrainingError(f"the optimizer's {name!s:.40} must be a number, not {type(value).__name__}")
    return groups


def planned(optimizer: Optimizer, schedule: Schedule | None, steps: int) -> Plan:
    """Return the hyperparameters of each of ``steps`` steps: constant, or as ``schedule`` sets them step by step.

    Raises:
        UnsafeTrainingError: the schedule needs more than the number of steps, such as a loss.
    """
    if schedule is None:
        fixed = hyperparameters_of(optimizer)
        return lambda _: fixed
    stand_in = type(optimizer)(
        [{**values, "params": [torch.nn.Parameter(torch.zeros(1))]} for values in hyperparameters_of(optimizer)]
    )  # type: ignore[call-arg]
    table: list[Hyperparameters] = []
    try:
        scheduler = schedule(stand_in)
        for number in range(steps):
            if number:
                stand_in.step()
                scheduler.step()
            table.append(hyperparameters_of(stand_in))
    except (TypeError, ValueError) as error:
        raise UnsafeTrainingError(f"a schedule of {steps} steps cannot be computed from step numbers alone") from error
    return lambda step: table[step]


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(each) for each in value)
    return value is None or type(value) in (bool, int, float, str)
