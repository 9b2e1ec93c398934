"""What an accepted job gives to whoever writes the training loop, without passing it through their code.

A session opens a scope around the training of one round. A :class:`~coreason_enclave.privacy.PrivacyGuard` made
inside takes reservation, randomness and denominators from it, whatever the loop looks like, and what the gate counted
is the privacy event that is recorded: a loop cannot report another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.crypto.keystream import Keystream
from coreason_enclave.ledger.records import Reservation
from coreason_enclave.privacy.drift_correction import DriftCorrection
from coreason_enclave.privacy.kernel.rehearsal import Rehearsal
from coreason_enclave.privacy.step_gate import StepGate
from coreason_enclave.schemas import Mechanism, PrivacyConfig
from coreason_enclave.wire.updates import Arrays

if TYPE_CHECKING:
    from coreason_enclave.privacy.iterate import PrivateIterate

__all__ = ["TrainingScope", "current_scope", "enter"]

_SCOPE: ContextVar[TrainingScope | None] = ContextVar("training_scope", default=None)


@dataclass(frozen=True)
class TrainingScope:
    """One reservation, being spent.

    Attributes:
        config: the resolved configuration: every value present.
        requested: the configuration as the job stated it; a guard may be built with either.
        nominal_units: the declared, public number of units.
        unit_of_row: shape (rows,) for persons, None for records.
        drift: what the job's strategy adds to each step; None: nothing.
        base: inside a session, the global weights, in memory that nobody can write into; None outside.
        iterates: what a guard attached: inside a session one at most, and what it reached is what may leave.
        rehearsal: of the training loop over synthetic rows, running or passed; None: there was none.
    """

    config: PrivacyConfig
    requested: PrivacyConfig
    reservation: Reservation
    gate: StepGate
    keystream: Keystream
    nominal_units: int
    unit_of_row: npt.NDArray[Any] | None
    drift: DriftCorrection | None
    base: Arrays | None = None
    iterates: list[PrivateIterate] = field(default_factory=list)
    rehearsal: Rehearsal | None = None

    def event(self) -> Event:
        """What was run so far, as counted here."""
        worst = self.reservation.event
        if self.config.mechanism is Mechanism.NON_PRIVATE or not isinstance(worst, PoissonSampledGaussian):
            return NonPrivate()
        return worst.with_steps(self.gate.steps_taken)


def current_scope() -> TrainingScope | None:
    """The scope of the round being trained in this thread, if any."""
    return _SCOPE.get()


@contextmanager
def enter(scope: TrainingScope) -> Iterator[TrainingScope]:
    """Open ``scope`` for the calling thread; scopes do not nest."""
    if _SCOPE.get() is not None:
        raise RuntimeError("a training scope is already open in this thread")
    token = _SCOPE.set(scope)
    try:
        yield scope
    finally:
        _SCOPE.reset(token)
