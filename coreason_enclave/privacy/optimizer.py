"""The private step: per-unit clipping and calibrated noise in float64, inside Opacus' optimizer.

Opacus supplies per-row gradients and the optimizer's protocol. Clipping, summing and noising are done here in
float64, for two reasons. Sums of float32 round by more than the clipping tolerates, and a person's several rows can
cancel: their summed gradient has to be computed before its norm is. And Gaussian noise in floating point can betray
its input through the low bits of the result (Mironov, 2012), so the noised sum is rounded to a grid of
``2^(floor(log2(sigma C)) - 20)``: public, about a millionth of the noise's own standard deviation, and coarse
against float64's spacing, which removes those bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from torch.optim import Optimizer

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.keystream import Keystream, Purpose, noise_grid
from coreason_enclave.privacy.drift import Drift
from coreason_enclave.privacy.gate import Batch, StepGate

__all__ = ["PrivateOptimizer", "UnitClippingOptimizer"]


class UnitClippingOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Clips each unit's summed gradient to ``max_grad_norm``, sums, and divides by the declared expected size.

    Adds **no noise**: on its own it gives no guarantee. See :class:`PrivateOptimizer`.

    Args:
        optimizer: the optimizer that takes the resulting step.
        names: parameter to name, for messages and draws.
        max_grad_norm: the L2 bound C on one unit's contribution; ``math.inf`` clips nothing.
        expected_units: the denominator, sample_rate times the declared number of units; never a private count.
        drift: what the job's strategy adds to each step; None: nothing.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        names: dict[torch.nn.Parameter, str],
        gate: StepGate,
        max_grad_norm: float,
        noise_multiplier: float,
        expected_units: float,
        drift: Drift | None,
    ) -> None:
        self._names, self._gate, self._drift = names, gate, drift
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_units,
            loss_reduction="mean",
        )
        self._step_number: int | None = None

    def signal_skip_step(self, do_skip: bool = True) -> None:
        """Refused: a unit's rows may not be cut across physical batches."""
        raise UnsafeTrainingError("virtual batches are not supported: a unit's rows must be in one batch")

    def pre_step(self, closure: Any = None) -> bool:
        """Charge the step, then clip, noise and scale, then add the strategy's term.

        Nothing runs if the charge is refused.
        """
        self._step_number, batch = self._gate.take_step()
        self._sum_clipped(batch)
        self.add_noise()
        self.scale_grad()
        if self._drift is not None:
            self._drift.add_to_gradients(self._names)
        if self.step_hook:
            self.step_hook(self)
        return True

    def _sum_clipped(self, batch: Batch) -> None:
        by_unit = [self._sum_by_unit(parameter, batch) for parameter in self.params]
        squared = sum((gradient.square().sum(dim=1) for gradient in by_unit), torch.zeros(batch.units).double())
        finite = torch.isfinite(squared)
        if not bool(finite.all()):
            self._meet_infinite_gradient()
        factor = (self.max_grad_norm / squared[finite].sqrt().clamp(min=1e-300)).clamp(max=1.0)
        for parameter, gradient in zip(self.params, by_unit, strict=True):
            parameter.summed_grad = (factor @ gradient[finite]).view(parameter.shape)

    def _meet_infinite_gradient(self) -> None:
        """Without a guarantee to keep, say what is wrong."""
        raise UnsafeTrainingError("a gradient is not finite: lower the learning rate or scale the features")

    def _sum_by_unit(self, parameter: torch.nn.Parameter, batch: Batch) -> torch.Tensor:
        """Per-row gradients summed within each unit: shape (units, parameter size), float64."""
        per_row = getattr(parameter, "grad_sample", None)
        if not isinstance(per_row, torch.Tensor) or len(per_row) != len(batch.rows):
            raise UnsafeTrainingError(
                f"parameter {self._names[parameter]!r} has no per-row gradient for exactly the batch that was drawn: "
                "run one forward and one backward over each batch of the private loader, then step and zero_grad"
            )
        flat = per_row.detach().reshape(len(per_row), parameter.numel()).double()
        total = torch.zeros(batch.units, parameter.numel(), dtype=torch.float64)
        return total.index_add_(0, torch.from_numpy(batch.unit_of_row), flat)

    def add_noise(self) -> None:
        """Without a mechanism the clipped sum becomes the gradient as it is."""
        for parameter in self.params:
            parameter.grad = parameter.summed_grad.to(parameter.dtype)


class PrivateOptimizer(UnitClippingOptimizer):
    """Clips by unit and adds Gaussian noise of standard deviation ``noise_multiplier * max_grad_norm`` per coordinate.

    One step satisfies the guarantee of one step of
    :class:`~coreason_enclave.accounting.events.PoissonSampledGaussian`, provided that its batch came from
    :class:`~coreason_enclave.privacy.sampling.PoissonUnitSampler`, which the gate sees to.
    """

    def __init__(self, optimizer: Optimizer, *, keystream: Keystream, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        self._keystream = keystream

    def _meet_infinite_gradient(self) -> None:
        """Such a unit adds nothing to the sum, which its clipping allows.

        Failing instead would answer a question about private rows without noise: a coordinator can choose weights that
        overflow on exactly those rows it asks about, and a refusal would tell that they are there.
        """

    def add_noise(self) -> None:
        """Noise, round to the public grid, and only then return to the parameter's own precision."""
        deviation = self.noise_multiplier * self.max_grad_norm
        grid = noise_grid(deviation)
        step = self._step_number
        if step is None:
            raise UnsafeTrainingError("noise belongs to a step: call step(), not add_noise()")
        for parameter in self.params:
            draw = self._keystream.normal(parameter.numel(), Purpose.NOISE, step, self._names[parameter])
            noised = parameter.summed_grad.reshape(-1).numpy() + deviation * draw
            rounded = torch.from_numpy(np.rint(noised / grid) * grid)
            parameter.grad = rounded.view(parameter.shape).to(parameter.dtype)
