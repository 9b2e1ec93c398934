"""Drift correction: a strategy's term, added to every local step to keep a site's weights near the other sites'.

The optimizer adds the term to the gradient *after* clipping, noise and scaling, and before its own step. The term
depends on released weights and noised iterates alone: as post-processing, it costs no privacy and changes no event.
Inside the loss, the term would be clipped away with the rows' gradients, or break their bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.schemas import AggregationStrategy, FederationJob
from coreason_enclave.wire import Arrays

Names = Mapping[torch.nn.Parameter, str]


@dataclass(frozen=True)
class DriftCorrection(ABC):
    """A term for each parameter.

    Attributes:
        arrays: the term's inputs, by parameter name.
    """

    arrays: Arrays

    def require_fits(self, names: Names) -> None:
        """Raise :class:`UnsafeTrainingError` unless each parameter has a term: no term may be lost in silence."""
        for parameter, name in names.items():
            array = self.arrays.get(name)
            if array is None or array.shape != tuple(parameter.shape):
                raise UnsafeTrainingError(f"the global model lacks {name!r}: attach the job's model without wrappers")

    def add_to_gradients(self, names: Names) -> None:
        """Add the term to each parameter's ``grad``, just before the optimizer's own step."""
        for parameter, name in names.items():
            if parameter.grad is not None:
                parameter.grad.add_(self._term(name, parameter.detach()))

    @abstractmethod
    def _term(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return the term for the parameter ``name`` with present value ``value``."""


@dataclass(frozen=True)
class ProximalTerm(DriftCorrection):
    """FedProx (Li et al., 2020): ``mu * (w - w_global)``; ``arrays`` holds the global weights."""

    mu: float

    def _term(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return self.mu * (value - torch.tensor(self.arrays[name], dtype=value.dtype))


@dataclass(frozen=True)
class ControlTerm(DriftCorrection):
    """SCAFFOLD (Karimireddy et al., 2020): ``c - c_i``, the same in every step; ``arrays`` holds these differences."""

    def _term(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.arrays[name], dtype=value.dtype)


def drift_of(job: FederationJob, base: Arrays, correction: Arrays | None) -> DriftCorrection | None:
    """Return the term of the job's strategy; None for FED_AVG, which has no term.

    Args:
        base: the global weights.
        correction: the order's correction, required for a SCAFFOLD job.

    Raises:
        UnsafeTrainingError: a SCAFFOLD order came without a correction.
    """
    match job.strategy:
        case AggregationStrategy.FED_AVG:
            return None
        case AggregationStrategy.FED_PROX:
            return ProximalTerm(base, job.proximal_mu)
        case AggregationStrategy.SCAFFOLD:
            if correction is None:
                raise UnsafeTrainingError("SCAFFOLD needs the order's correction")
            return ControlTerm(correction)
