"""The agent's built-in architectures.

Activations are bounded (tanh): under clipping they lose less than rectified activations (Papernot et al., "Tempered
Sigmoid Activations for Deep Learning with Differential Privacy", 2021). No layer mixes the examples of a batch, because
mixing would void per-example clipping.
"""

from __future__ import annotations

import torch
from torch import nn


class LogisticRegression(nn.Module):
    """One linear layer to one logit: (n, in_features) → (n, 1). Two classes only."""

    def __init__(self, in_features: int, classes: int = 2) -> None:
        super().__init__()
        if classes != 2:
            raise ValueError(f"LogisticRegression has one logit for 2 classes, got {classes}: use SimpleMLP")
        self.linear = nn.Linear(in_features, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(features)
        return logits


class SimpleMLP(nn.Module):
    """One hidden layer with tanh: (n, in_features) or (n, …) flattened → (n, classes)."""

    def __init__(self, in_features: int, hidden: int = 64, classes: int = 2) -> None:
        super().__init__()
        _at_least_two(classes)
        self.hidden = nn.Linear(in_features, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(torch.tanh(self.hidden(features.flatten(1))))
        return logits


class SmallCNN(nn.Module):
    """Two strided convolutions with tanh and a linear layer: (n, in_channels, size, size) → (n, classes)."""

    def __init__(self, in_channels: int, size: int, classes: int, width: int = 16) -> None:
        super().__init__()
        _at_least_two(classes)
        if size < 4:
            raise ValueError(f"size must be at least 4, got {size}")
        side = (size + 3) // 4  # each convolution halves, rounding up
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1)
        self.output = nn.Linear(2 * width * side * side, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.conv2(torch.tanh(self.conv1(images))))
        logits: torch.Tensor = self.output(hidden.flatten(1))
        return logits


def _at_least_two(classes: int) -> None:
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
