"""The mechanism itself, as pure functions: clip each update, sum, add noise, divide by what was expected.

Everything until the division is computed in float64, and the noised sum is rounded to a public grid
(:func:`coreason_enclave.crypto.keystream.noise_grid`); what follows is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coreason_enclave.crypto.keystream import Keystream, Purpose, noise_grid
from coreason_enclave.wire.updates import Array, Arrays, Layout

__all__ = ["clip_factor", "clipped_sum", "noised_mean"]

Sums = Mapping[str, NDArray[np.float64]]


def clip_factor(update: Arrays, clip_norm: float) -> float:
    """``min(1, clip_norm / norm)`` over the whole update: one factor for all tensors, so that its direction stays."""
    norm = math.sqrt(sum(float(np.square(update[name], dtype=np.float64).sum()) for name in sorted(update)))
    return clip_norm / norm if norm > clip_norm else 1.0


def clipped_sum(updates: Sequence[Arrays], layout: Layout, clip_norm: float) -> dict[str, NDArray[np.float64]]:
    """The sum of the updates, each scaled down to norm ``clip_norm`` where it is longer; zeros for none.

    One update more or less moves it by at most ``clip_norm`` in Euclidean norm, whatever that update holds, up to what
    float64 rounds. Added in the order given: who sorts them gets the same bits.

    Args:
        updates: finite float32 arrays with the names and shapes of ``layout``.
    """
    total = {name: np.zeros(shape, np.float64) for name, shape in layout.items()}
    for update in updates:
        factor = clip_factor(update, clip_norm)
        for name, sums in total.items():
            sums += factor * update[name].astype(np.float64)
    return total


def noised_mean(
    sums: Sums, keystream: Keystream, *, draw: int, deviation: float, expected_sites: float
) -> dict[str, Array]:
    """``(sums + N(0, deviation^2)) / expected_sites``, each coordinate with a noise of its own.

    Args:
        keystream: of this round and of these very updates; ``draw`` names the round's draw in it.
        deviation: noise multiplier times clip norm, the standard deviation of what is added to the sum.
        expected_sites: sample rate times the fixed number of sites; never the number that answered.
    """
    grid = noise_grid(deviation)
    released = {}
    for name, values in sums.items():
        noise = deviation * keystream.normal(values.size, Purpose.NOISE, draw, name)
        noised = np.rint((values.reshape(-1) + noise) / grid) * grid
        released[name] = (noised / expected_sites).reshape(values.shape).astype(np.float32)
    return released
