"""How many threads a training step uses: a sum that is split otherwise rounds otherwise."""

from __future__ import annotations

import torch

__all__ = ["train_on_one_thread"]


def train_on_one_thread() -> None:
    """For the whole process: a crashed round recomputes to the same bytes only where sums are taken in one order."""
    torch.set_num_threads(1)
