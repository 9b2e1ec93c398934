"""The server's optimizer: federated averaging, and Adam and Yogi over the rounds' updates.

Source: Reddi et al., "Adaptive Federated Optimization" (ICLR 2021), algorithm 2, with the paper's symbols. The combined
update ``delta`` stands for the negative of a gradient. ``m`` starts at zero and ``v`` at ``tau`` squared, without the
bias correction of single-machine Adam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coreason_enclave.schemas import ServerOptimizer, ServerOptimizerConfig
from coreason_enclave.wire import Array, Arrays

_Float64 = NDArray[np.float64]
_PREFIXES = ("m/", "v/")


@dataclass(frozen=True, eq=False)
class Moments:
    """Running means of the update (``m``) and of its square (``v``), with the model's names and shapes."""

    m: Arrays
    v: Arrays

    def to_arrays(self) -> dict[str, Array]:
        """Return the moments as one document: ``m/<name>`` and ``v/<name>``."""
        parts = zip(_PREFIXES, (self.m, self.v), strict=True)
        return {f"{prefix}{name}": array for prefix, arrays in parts for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Moments:
        """Return the moments that :meth:`to_arrays` wrote."""
        return cls(*({name[2:]: array for name, array in arrays.items() if name[:2] == each} for each in _PREFIXES))


def server_step(
    base: Arrays, delta: Arrays, config: ServerOptimizerConfig, moments: Moments | None
) -> tuple[dict[str, Array], Moments | None]:
    """Return the next global model, and the moments for the round after.

    ``sgd`` with learning rate 1 gives exactly ``base + delta`` in float32. Adam and Yogi compute in float64 from the
    stored float32 moments, so that a resumed run gives the same bits.

    Args:
        base: the global weights that the sites started from.
        delta: the aggregator's result, with the same names and shapes.
        moments: as returned for the round before; None in the first round, and always for ``sgd``.
    """
    if config.name is ServerOptimizer.SGD:
        rate = np.float32(config.learning_rate)
        return {name: np.asarray(base[name] + rate * delta[name]) for name in base}, None
    before = _initial(base, config.tau) if moments is None else moments
    m = {name: _mean(before.m[name], delta[name].astype(np.float64), config.beta_1) for name in base}
    v = {name: _spread(before.v[name], delta[name].astype(np.float64), config) for name in base}
    following = Moments(_float32(m), _float32(v))
    return {name: _moved(base[name], following.m[name], following.v[name], config) for name in base}, following


def _initial(base: Arrays, tau: float) -> Moments:
    return Moments(
        {name: np.zeros_like(array) for name, array in base.items()},
        {name: np.full_like(array, tau**2) for name, array in base.items()},
    )


def _mean(before: Array, new: _Float64, beta: float) -> _Float64:
    return beta * before.astype(np.float64) + (1.0 - beta) * new


def _spread(before: Array, delta: _Float64, config: ServerOptimizerConfig) -> _Float64:
    """Return the new ``v``. Adam: a running mean of squares. Yogi: moves up or down by a fraction of the new square."""
    square = np.square(delta)
    if config.name is ServerOptimizer.ADAM:
        return _mean(before, square, config.beta_2)
    v = before.astype(np.float64)
    return np.asarray(v - (1.0 - config.beta_2) * square * np.sign(v - square))


def _moved(base: Array, m: Array, v: Array, config: ServerOptimizerConfig) -> Array:
    step = m.astype(np.float64) / (np.sqrt(v.astype(np.float64)) + config.tau)
    return np.asarray((base + config.learning_rate * step).astype(np.float32))


def _float32(arrays: Mapping[str, _Float64]) -> dict[str, Array]:
    return {name: array.astype(np.float32) for name, array in arrays.items()}
