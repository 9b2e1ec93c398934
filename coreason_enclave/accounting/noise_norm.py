"""How much of a job's update would be noise, before anything is spent: what can only be thrown away is refused.

Each step adds to each weight Gaussian noise of ``learning_rate * noise_multiplier * max_grad_norm / (sample_rate *
units)``. Over a round that is a vector whose norm is known in advance within a few per cent, for it has as many
independent components as the model has parameters. An update whose noise alone is longer than the job's
``max_update_norm`` would be refused at release, after its privacy was spent.
"""

from __future__ import annotations

import math

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.schemas import AggregationStrategy, FederationJob, Mechanism

__all__ = ["noise_norm", "require_less_noise_than_norm", "signal_to_noise"]


def noise_norm(job: FederationJob, *, parameters: int, nominal_units: int) -> float:
    """The L2 norm to expect of the noise in one round's update of one site; 0 for a job without noise.

    With the terms of strategies other than FED_AVG, which pull back towards the base model, only the last step's noise
    is counted: the least that it can be.
    """
    privacy = job.privacy
    if privacy.mechanism is not Mechanism.DP_SGD or privacy.noise_multiplier is None or privacy.max_grad_norm is None:
        return 0.0
    deviation = privacy.noise_multiplier * privacy.max_grad_norm / (privacy.sample_rate * nominal_units)
    steps = job.local_steps if job.strategy is AggregationStrategy.FED_AVG else 1
    return job.learning_rate * deviation * math.sqrt(parameters * _weight(steps, job.momentum))


def _weight(steps: int, momentum: float) -> float:
    """Sum of squares of what each step's gradient contributes to the weights, for learning rate 1."""
    if momentum == 0:
        return float(steps)
    geometric = momentum * (1 - momentum**steps) / (1 - momentum)
    squares = momentum**2 * (1 - momentum ** (2 * steps)) / (1 - momentum**2)
    return (steps - 2 * geometric + squares) / (1 - momentum) ** 2


def signal_to_noise(
    *, noise_multiplier: float, sample_rate: float, steps: int, parameters: int, nominal_units: int
) -> float:
    """At most this many times the norm of the noise is what ``steps`` steps can learn.

    The longest signal is that of gradients which all are as long as the clipping norm and all point the same way.
    """
    return sample_rate * nominal_units * math.sqrt(steps / parameters) / noise_multiplier


def require_less_noise_than_norm(job: FederationJob, *, parameters: int, nominal_units: int) -> None:
    """Refuse a job whose noise alone is longer than its ``max_update_norm``.

    Raises:
        JobRejected: with reason ``norm_exceeded``, and the signal to noise.
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
        f"{job.max_update_norm:g}: the update would be thrown away after its privacy was spent. Signal to noise is at "
        f"most {ratio:.2g}; a larger target_epsilon or sample_rate, more units or a smaller learning_rate would help",
        reason=Reason.NORM_EXCEEDED,
    )
