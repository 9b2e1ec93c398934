"""Checks a session runs on a trained update and its metrics before release, whatever the training loop returned.

1. The loop attached exactly one guard, in this very scope.
2. The iterate moved by as many noised steps as the gate charged, and by no more than the reservation allows.
3. The update equals the guard's iterate minus the base model, bit for bit.
4. Each metric equals the session's own value: a number that a loop may choose could carry a row.

Training without a mechanism (public lineages alone) has no iterate, and checks 1 to 3 do not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coreason_enclave.accounting import compose_epsilon
from coreason_enclave.crypto import sha256_hex
from coreason_enclave.errors import DataLeakageError, Reason
from coreason_enclave.privacy.iterate import PrivateIterate
from coreason_enclave.privacy.scope import TrainingScope
from coreason_enclave.schemas import Mechanism
from coreason_enclave.wire import ReleasableUpdate, encode_arrays


def require_reached(scope: TrainingScope, update: ReleasableUpdate) -> None:
    """Raise unless charged, noised steps reached the update from the base model.

    Raises:
        DataLeakageError: reason ``no_privacy_event`` if no guard trained, otherwise ``leakage``.
    """
    if scope.config.mechanism is Mechanism.NON_PRIVATE:
        return
    iterate = _only_iterate(scope)
    if iterate.steps != scope.gate.steps_taken:
        raise DataLeakageError(f"{iterate.steps} steps changed the weights, but {scope.gate.steps_taken} were charged")
    if iterate.steps > scope.reservation.step_limit:
        raise DataLeakageError(f"{iterate.steps} steps ran, but only {scope.reservation.step_limit} are reserved")
    if sha256_hex(encode_arrays(iterate.difference())) != update.digest:
        raise DataLeakageError("the update is not the private steps' exact result: return the attached model's weights")


def require_known_metrics(scope: TrainingScope, metrics: Mapping[str, float]) -> None:
    """Raise unless each metric equals the public number with the same name.

    Raises:
        DataLeakageError: a metric has an unknown name or another value.
    """
    known: dict[str, Callable[[], float | None]] = {
        "epsilon": lambda: _epsilon(scope),
        "delta": lambda: scope.config.delta,
        "steps": lambda: scope.gate.steps_taken,
        "sample_rate": lambda: scope.config.sample_rate,
        "noise_multiplier": lambda: scope.config.noise_multiplier,
        "nominal_units": lambda: scope.nominal_units,
    }
    wrong = sorted(name for name, value in metrics.items() if name not in known or known[name]() != value)
    if wrong:
        raise DataLeakageError(
            f"metrics {', '.join(wrong)} differ from the session's counts: return the guard's last metrics, or none"
        )


def _only_iterate(scope: TrainingScope) -> PrivateIterate:
    if len(scope.iterates) != 1:
        raise DataLeakageError(
            f"{len(scope.iterates)} models were attached to the guard in this round: attach exactly one",
            reason=Reason.LEAKAGE if scope.iterates else Reason.NO_PRIVACY_EVENT,
        )
    return scope.iterates[0]


def _epsilon(scope: TrainingScope) -> float | None:
    if scope.config.mechanism is Mechanism.NON_PRIVATE or scope.config.delta is None:
        return None
    return compose_epsilon([*scope.reservation.prior_events, scope.event()], scope.config.delta).epsilon
