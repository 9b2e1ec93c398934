"""Estimates the noise in a job's update before any privacy is spent, and refuses a job with too much noise.

Each step adds to each weight Gaussian noise of ``learning_rate * noise_multiplier * max_grad_norm / (sample_rate *
units)``. Over a round, the noise forms a vector with as many independent components as the model has parameters, so its
norm is known in advance within a few per cent. If the noise alone exceeds the job's ``max_update_norm``, the release
would refuse the update after its privacy was spent.
"""

from __future__ import annotations

import math

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.schemas import AggregationStrategy, FederationJob, Mechanism


def noise_norm(job: FederationJob, *, parameters: int, nominal_units: int) -> float:
    """Return the expected L2 norm of the noise in one site's update of one round; 0 for a job without noise.

    FED_AVG counts the noise of all steps. Other strategies pull back towards the base model, so only the last step's
    noise counts: the smallest possible value.
    """
    privacy = job.privacy
    if privacy.mechanism is not Mechanism.DP_SGD or privacy.noise_multiplier is None or privacy.max_grad_norm is None:
        return 0.0
    deviation = privacy.noise_multiplier * privacy.max_grad_norm / (privacy.sample_rate * nominal_units)
    steps = job.local_steps if job.strategy is AggregationStrategy.FED_AVG else 1
    return job.learning_rate * deviation * math.sqrt(parameters * _weight(steps, job.momentum))


def _weight(steps: int, momentum: float) -> float:
    """Return the sum of squares of each step's gradient contribution to the weights, for learning rate 1."""
    if momentum == 0:
        return float(steps)
    geometric = momentum * (1 - momentum**steps) / (1 - momentum)
    squares = momentum**2 * (1 - momentum ** (2 * steps)) / (1 - momentum**2)
    return (steps - 2 * geometric + squares) / (1 - momentum) ** 2


def signal_to_noise(
    *, noise_multiplier: float, sample_rate: float, steps: int, parameters: int, nominal_units: int
) -> float:
    """Return an upper bound on how much ``steps`` steps can learn, as a multiple of the noise's norm.

    The longest signal comes from gradients that all reach the clipping norm and all point the same way.
    """
    return sample_rate * nominal_units * math.sqrt(steps / parameters) / noise_multiplier


def require_less_noise_than_norm(job: FederationJob, *, parameters: int, nominal_units: int) -> None:
    """Raise for a job whose noise alone exceeds its ``max_update_norm``.

    Raises:
        JobRejected: with reason ``norm_exceeded``; the message states the signal-to-noise ratio.
    """
    expected = noise_norm(job, parameters=parameters, nominal_units=nominal_units)
    if expected <= job.max_update_norm:
        return
    ratio = signal_to_noise(
        noise_multiplier=job.privacy.noise_multiplier or 1.0,
        sample_rate=job.privacy.sample_rate,
        steps=job.local_steps,
        parameters=parameters,
        nominal_units=nominal_units,
    )
    raise JobRejected(
        f"the noise of one round alone has a norm of about {expected:.3g}, above the job's max_update_norm "
        f"{job.max_update_norm:g}: the update would be discarded after its privacy was spent. Signal to noise is at "
        f"most {ratio:.2g}; use a larger target_epsilon or sample_rate, more units or a smaller learning_rate",
        reason=Reason.NORM_EXCEEDED,
    )
