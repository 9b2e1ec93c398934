"""SCAFFOLD's control variates, kept by the coordinator alone.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (ICML 2020), with option II of
its algorithm: a site's variate ``c_i`` becomes ``c_i - c - update / (K * learning_rate)``, the mean direction of the
``K`` steps that it took. That needs its released update and nothing else, so the coordinator computes it, and the site
keeps no state and sends no second document: it is sent ``c - c_i``, which it adds to each of its gradients.

``c`` moves by what the job's aggregator made of the round, not by the mean of what single sites sent: a hostile site
decides over its own ``c_i``, which nobody else is sent, and over ``c`` no more than over the model.

Computed in float64 and rounded to float32; what would overflow stays at float32's largest value, so that a variate is
finite whatever was admitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coreason_enclave.wire.updates import Array, Arrays

__all__ = ["correction", "next_server_control", "next_site_control"]

_LARGEST = float(np.finfo(np.float32).max)


def correction(control: Arrays, own: Arrays) -> dict[str, Array]:
    """``c - c_i``: what a site adds to each of its gradients.

    Args:
        control: ``c``. own: the site's ``c_i``; the same names and shapes.
    """
    return {name: _float32(_wide(control[name]) - own[name]) for name in control}


def next_site_control(own: Arrays, control: Arrays, update: Arrays, *, steps_times_lr: float) -> dict[str, Array]:
    """A site's ``c_i`` after a round in which its ``update`` was admitted.

    Args:
        own, control: ``c_i`` and ``c`` that its order was made from.
        update: its new weights minus the global ones.
        lasting: ``K * learning_rate``, the job's local steps times their learning rate.
    """
    return {
        name: _float32(_wide(own[name]) - control[name] + _direction(update[name], steps_times_lr)) for name in control
    }


def next_server_control(control: Arrays, combined: Arrays, *, share: float, steps_times_lr: float) -> dict[str, Array]:
    """``c`` after a round; with all sites and the plain mean it is the mean of their variates.

    Args:
        combined: the round's update, as the job's aggregator combined it.
        share: of the enrolled sites, those whose updates it was made from: above 0, at most 1.
        lasting: as for :func:`next_site_control`.
    """
    return {
        name: _float32(_wide(control[name]) + share * (_direction(combined[name], steps_times_lr) - control[name]))
        for name in control
    }


def _direction(update: Array, steps_times_lr: float) -> NDArray[np.float64]:
    """The mean direction of the steps that an update is made of: what their gradients were on average."""
    with np.errstate(over="ignore"):  # of a learning rate next to nothing: see _float32
        return -_wide(update) / steps_times_lr


def _wide(array: Array) -> NDArray[np.float64]:
    return array.astype(np.float64)


def _float32(array: NDArray[np.float64]) -> Array:
    return np.asarray(np.clip(array, -_LARGEST, _LARGEST), np.float32)
