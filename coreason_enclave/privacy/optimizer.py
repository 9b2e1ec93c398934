"""The private optimizer step: the clipped sum and calibrated noise in float64, inside Opacus' optimizer.

Opacus supplies the optimizer's protocol, :mod:`~coreason_enclave.privacy.kernel` the clipped sum. Gaussian noise in
floating point can betray its input through the low bits of the result (Mironov, 2012). The step therefore rounds the
noised sum to a grid of ``2^(floor(log2(sigma C)) - 20)``, which removes those bits. The grid:

- is public;
- measures about a millionth of the noise's own standard deviation;
- is coarse against float64's spacing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from torch.optim import Optimizer

from coreason_enclave.crypto import Keystream, Purpose, noise_grid
from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.drift_correction import DriftCorrection
from coreason_enclave.privacy.kernel import GradientKernel, Rehearsal
from coreason_enclave.privacy.step_gate import Batch, StepGate


class UnitClippingOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Clips each unit's summed gradient to ``max_grad_norm``, sums, and divides by the declared expected size.

    Adds **no noise** and alone gives no guarantee. See :class:`PrivateOptimizer`.

    Args:
        optimizer: the optimizer that takes the resulting step.
        kernel: computes the clipped sum of the sampled batch.
        rehearsal: the rehearsal, if any; its steps change and charge nothing.
        names: parameter to name, for messages and noise draws.
        max_grad_norm: the L2 bound C on one unit's contribution; ``math.inf`` clips nothing.
        expected_units: the denominator, sample_rate times the declared number of units; never a private count.
        drift: the strategy's term, added to each step; None: no term.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        kernel: GradientKernel,
        rehearsal: Rehearsal | None,
        names: dict[torch.nn.Parameter, str],
        gate: StepGate,
        max_grad_norm: float,
        noise_multiplier: float,
        expected_units: float,
        drift: DriftCorrection | None,
    ) -> None:
        self._names, self._gate, self._drift = names, gate, drift
        self._kernel, self._rehearsal = kernel, rehearsal
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_units,
            loss_reduction="mean",
        )
        self._step_number: int | None = None
        self._given: dict[torch.nn.Parameter, tuple[torch.Tensor, int]] = {}

    def signal_skip_step(self, do_skip: bool = True) -> None:
        """Raise always: a unit's rows must not be cut across physical batches."""
        raise UnsafeTrainingError("virtual batches are not supported: all rows of a unit must be in one batch")

    def pre_step(self, closure: Any = None) -> bool:
        """Charge the step, then clip, add noise, scale and add the strategy's term.

        Returns:
            False for a rehearsal's step, which takes no optimizer step. If the gate refuses the charge, nothing runs.
        """
        if self._rehearsal is not None and self._rehearsal.pending:
            self._rehearsal.step(self._kernel)
            return False
        self._require_no_other_gradient()
        self._step_number, batch = self._gate.take_step()
        self._sum_clipped(batch)
        self.add_noise()
        self.scale_grad()
        if self._drift is not None:
            self._drift.add_to_gradients(self._names)
        self._given = {p: (p.grad, p.grad._version) for p in self.params if p.grad is not None}
        if self.step_hook:
            self.step_hook(self)
        return True

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set every gradient to None, whatever ``set_to_none`` says: a later gradient must come from the next step."""
        del set_to_none
        super().zero_grad(set_to_none=True)

    def scale_grad(self) -> None:
        """Divide the gradients by the declared expected size."""
        for parameter in self.params:
            parameter.grad /= self.expected_batch_size

    def _sum_clipped(self, batch: Batch) -> None:
        clipped = self._kernel.clipped_sum(batch, self.max_grad_norm)
        if not clipped.all_finite:
            self._handle_infinite_gradient()
        for parameter in self.params:
            parameter.summed_grad = clipped.sums[parameter].view(parameter.shape)

    def _require_no_other_gradient(self) -> None:
        """Raise if a parameter has a gradient from outside its layer (the kernel sets none): no clipping bounds it."""
        for parameter in self.params:
            grad, (given, version) = parameter.grad, self._given.get(parameter, (None, 0))
            if grad is None or (grad is given and given._version == version):
                continue
            if bool(grad.any()):
                raise UnsafeTrainingError(
                    f"parameter {self._names[parameter]!r} has a gradient from outside its layer, which clipping "
                    "does not bound: use the optimizer's weight_decay for a penalty on weights"
                )

    def _handle_infinite_gradient(self) -> None:
        """Raise: without a guarantee to keep, the error may describe the gradient."""
        raise UnsafeTrainingError("a gradient is not finite: lower the learning rate or scale the features")

    def add_noise(self) -> None:
        """Set the clipped sum as the gradient, unchanged: no mechanism, no noise."""
        for parameter in self.params:
            parameter.grad = parameter.summed_grad.to(parameter.dtype)


class PrivateOptimizer(UnitClippingOptimizer):
    """Clips by unit and adds Gaussian noise of standard deviation ``noise_multiplier * max_grad_norm`` per coordinate.

    One step satisfies the guarantee of one step of :class:`~coreason_enclave.accounting.events.PoissonSampledGaussian`,
    provided that its batch came from :class:`~coreason_enclave.privacy.sampling.PoissonUnitSampler`. The gate enforces
    the condition.
    """

    def __init__(self, optimizer: Optimizer, *, keystream: Keystream, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        self._keystream = keystream

    def _handle_infinite_gradient(self) -> None:
        """Accept the sum without the unit whose gradient overflows; clipping allows a contribution of zero.

        An error would answer a question about private rows without noise. A coordinator can choose weights that
        overflow on exactly the rows in question, and an error would then reveal their presence.
        """

    def add_noise(self) -> None:
        """Add noise, round to the public grid, and only then return to the parameter's own precision."""
        deviation = self.noise_multiplier * self.max_grad_norm
        grid = noise_grid(deviation)
        step = self._step_number
        if step is None:
            raise UnsafeTrainingError("add_noise() is not supported: call step(), which adds the noise")
        for parameter in self.params:
            draw = self._keystream.normal(parameter.numel(), Purpose.NOISE, step, self._names[parameter])
            noised = parameter.summed_grad.reshape(-1).numpy() + deviation * draw
            rounded = torch.from_numpy(np.rint(noised / grid) * grid)
            parameter.grad = rounded.view(parameter.shape).to(parameter.dtype)
