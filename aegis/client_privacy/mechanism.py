"""The mechanism as pure functions: clip each update, sum, add noise, divide by the expected number of sites.

All steps before the division run in float64. The noised sum is rounded to a public grid
(:func:`coreason_enclave.crypto.keystream.noise_grid`); later steps are post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coreason_enclave.crypto import Keystream, Purpose, noise_grid
from coreason_enclave.wire import Array, Arrays, Layout

Sums = Mapping[str, NDArray[np.float64]]


def clip_factor(update: Arrays, clip_norm: float) -> float:
    """Return ``min(1, clip_norm / norm)`` over the whole update.

    One factor for all tensors preserves the update's direction.
    """
    norm = math.sqrt(sum(float(np.square(update[name], dtype=np.float64).sum()) for name in sorted(update)))
    return clip_norm / norm if norm > clip_norm else 1.0


def clipped_sum(updates: Sequence[Arrays], layout: Layout, clip_norm: float) -> dict[str, NDArray[np.float64]]:
    """Return the sum of the updates, each scaled down to norm ``clip_norm`` if longer; zeros without updates.

    One update more or less moves the sum by at most ``clip_norm`` in Euclidean norm, whatever the update holds, up to
    float64 rounding. Updates are added in the given order, so callers that sort them get the same bits.

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
    """Return ``(sums + N(0, deviation^2)) / expected_sites``, with independent noise for each coordinate.

    Args:
        keystream: the stream for this round and exactly these updates; ``draw`` names the round's draw in it.
        deviation: standard deviation of the noise on the sum: noise multiplier times clip norm.
        expected_sites: sample rate times the fixed number of sites; never the number that answered.
    """
    grid = noise_grid(deviation)
    released = {}
    for name, values in sums.items():
        noise = deviation * keystream.normal(values.size, Purpose.NOISE, draw, name)
        noised = np.rint((values.reshape(-1) + noise) / grid) * grid
        released[name] = (noised / expected_sites).reshape(values.shape).astype(np.float32)
    return released
