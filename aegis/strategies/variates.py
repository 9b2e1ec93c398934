"""SCAFFOLD's control variates, kept by the coordinator alone.

Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (ICML 2020), option II.

- A site's variate ``c_i`` becomes ``c_i - c - update / (K * learning_rate)``: the mean direction of the site's ``K``
  steps.
- The coordinator computes ``c_i`` itself, because the rule needs only the released update. A site keeps no state and
  sends no second document; it receives ``c - c_i`` and adds this to each of its gradients.
- ``c`` moves by the aggregator's result for the round, not by the mean of single sites' updates. A hostile site
  controls its own ``c_i``, which no other site receives, but influences ``c`` no more than the model.
- Arithmetic runs in float64 and rounds to float32. Overflow stays at float32's largest value, so a variate is finite
  for any admitted update.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coreason_enclave.wire import Array, Arrays

_LARGEST = float(np.finfo(np.float32).max)


def correction(control: Arrays, own: Arrays) -> dict[str, Array]:
    """Return ``c - c_i``, which a site adds to each of its gradients.

    Args:
        control: ``c``. own: the site's ``c_i``; the same names and shapes.
    """
    return {name: _float32(_as_float64(control[name]) - own[name]) for name in control}


def next_site_control(own: Arrays, control: Arrays, update: Arrays, *, steps_times_lr: float) -> dict[str, Array]:
    """Return a site's ``c_i`` after a round that admitted its ``update``.

    Args:
        own, control: the ``c_i`` and ``c`` behind the site's order.
        update: the site's new weights minus the global weights.
        steps_times_lr: ``K * learning_rate``, the job's local steps times their learning rate.
    """
    return {
        name: _float32(_as_float64(own[name]) - control[name] + _direction(update[name], steps_times_lr))
        for name in control
    }


def next_server_control(control: Arrays, combined: Arrays, *, share: float, steps_times_lr: float) -> dict[str, Array]:
    """Return ``c`` after a round. With all sites and the plain mean, ``c`` equals the mean of the sites' variates.

    Args:
        combined: the round's update, as combined by the job's aggregator.
        share: fraction of the enrolled sites whose updates went into ``combined``: above 0, at most 1.
        steps_times_lr: as for :func:`next_site_control`.
    """
    return {
        name: _float32(
            _as_float64(control[name]) + share * (_direction(combined[name], steps_times_lr) - control[name])
        )
        for name in control
    }


def _direction(update: Array, steps_times_lr: float) -> NDArray[np.float64]:
    """Return the mean direction of an update's steps: the average of their gradients."""
    with np.errstate(over="ignore"):  # a tiny learning rate overflows; _float32 clips
        return -_as_float64(update) / steps_times_lr


def _as_float64(array: Array) -> NDArray[np.float64]:
    return array.astype(np.float64)


def _float32(array: NDArray[np.float64]) -> Array:
    return np.asarray(np.clip(array, -_LARGEST, _LARGEST), np.float32)
