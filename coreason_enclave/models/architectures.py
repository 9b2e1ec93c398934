"""The agent's built-in architectures.

Activations are bounded (tanh): under clipping they lose less than rectified activations (Papernot et al., "Tempered
Sigmoid Activations for Deep Learning with Differential Privacy", 2021). No layer mixes the examples of a batch, because
mixing would void per-example clipping.
"""

from __future__ import annotations

from itertools import pairwise

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


class Linear(nn.Module):
    """One linear layer: (n, in_features) → (n, outputs)."""

    def __init__(self, in_features: int, outputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.linear(features.flatten(1))
        return made


class MLP(nn.Module):
    """``depth`` hidden layers of ``hidden`` units with tanh: (n, in_features) or (n, …) flattened → (n, outputs)."""

    def __init__(self, in_features: int, outputs: int = 1, hidden: int = 64, depth: int = 2) -> None:
        super().__init__()
        widths = [in_features, *[hidden] * depth]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.output = nn.Linear(hidden, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = features.flatten(1)
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        made: torch.Tensor = self.output(hidden)
        return made


class CNN(nn.Module):
    """``depth`` strided convolutions with tanh and a linear layer: (n, in_channels, height, width) → (n, outputs).

    Each convolution halves the sides, rounding up, and doubles the channels, from ``channels``.
    """

    def __init__(
        self, in_channels: int, height: int, width: int, outputs: int, channels: int = 16, depth: int = 2
    ) -> None:
        super().__init__()
        if min(height, width) < 2**depth:
            raise ValueError(f"{depth} halvings need sides of at least {2**depth}, got {height} x {width}")
        plan = [in_channels, *(channels * 2**level for level in range(depth))]
        self.layers = nn.ModuleList(nn.Conv2d(*pair, kernel_size=3, stride=2, padding=1) for pair in pairwise(plan))
        sides = [-(-side // 2**depth) for side in (height, width)]
        self.output = nn.Linear(plan[-1] * sides[0] * sides[1], outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = images
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        made: torch.Tensor = self.output(hidden.flatten(1))
        return made


class TabularResNet(nn.Module):
    """Residual blocks over a linear embedding: (n, in_features) → (n, outputs).

    Source: Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021, with LayerNorm in place of
    BatchNorm, which mixes rows, tanh in place of ReLU, and no dropout.
    """

    def __init__(self, in_features: int, outputs: int = 1, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Linear(in_features, width)
        self.blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(features.flatten(1))
        for block in self.blocks:
            hidden = block(hidden)
        made: torch.Tensor = self.output(self.norm(hidden))
        return made


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = hidden + self.outer(torch.tanh(self.inner(self.norm(hidden))))
        return made


class TextEmbedding(nn.Module):
    """The mean of the words' vectors and a linear layer: (n, length) token numbers → (n, outputs).

    The tokens are whole numbers from 0 to ``vocabulary - 1``, declared as a tensor's range, and reach the model scaled
    to [-1, 1] like every feature; the model scales them back. Token 0 fills short texts and does not count.
    """

    def __init__(self, vocabulary: int, outputs: int = 1, width: int = 32) -> None:
        super().__init__()
        if vocabulary < 2:
            raise ValueError(f"vocabulary must be at least 2, the filler and a word, got {vocabulary}")
        self.last = vocabulary - 1
        self.embedding = nn.Embedding(vocabulary, width)
        self.output = nn.Linear(width, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        tokens = torch.round((features.flatten(1) + 1.0) * (self.last / 2.0)).long().clamp(0, self.last)
        words = (tokens > 0).to(features.dtype).unsqueeze(2)
        mean = (self.embedding(tokens) * words).sum(1) / words.sum(1).clamp(min=1.0)
        made: torch.Tensor = self.output(mean)
        return made


def _at_least_two(classes: int) -> None:
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
