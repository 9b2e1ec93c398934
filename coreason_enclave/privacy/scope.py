"""The training scope: an accepted job's reservation, randomness and denominators, kept out of the user's loop.

A session opens a scope around the training of one round. A :class:`~coreason_enclave.privacy.PrivacyGuard` made inside
reads all three from the scope, whatever the loop looks like. The session records the gate's own count as the privacy
event, and a loop cannot report another event.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from coreason_enclave.accounting import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.crypto import Keystream
from coreason_enclave.ledger import Reservation
from coreason_enclave.privacy.drift_correction import DriftCorrection
from coreason_enclave.privacy.kernel import Rehearsal
from coreason_enclave.privacy.step_gate import StepGate
from coreason_enclave.schemas import Mechanism, PrivacyConfig
from coreason_enclave.wire import Arrays

if TYPE_CHECKING:
    from coreason_enclave.privacy.iterate import PrivateIterate

_SCOPE: ContextVar[TrainingScope | None] = ContextVar("training_scope", default=None)


@dataclass(frozen=True)
class TrainingScope:
    """A reservation during training, with everything a guard needs to spend it.

    Attributes:
        config: the resolved configuration: every value present.
        requested: the configuration as the job stated it; a guard accepts either.
        nominal_units: the declared, public number of units.
        unit_of_row: shape (rows,) for persons, None for records.
        drift: the strategy's term, added to each step; None: no term.
        base: inside a session, the global weights in read-only memory; None outside.
        iterates: the iterates of attached guards. Inside a session at most one, and only its result may leave.
        rehearsal: the rehearsal of the training loop over synthetic rows, running or passed; None: no rehearsal.
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
        """Return the privacy event of the steps so far, as the gate counted them."""
        worst = self.reservation.event
        if self.config.mechanism is Mechanism.NON_PRIVATE or not isinstance(worst, PoissonSampledGaussian):
            return NonPrivate()
        return worst.with_steps(self.gate.steps_taken)


def current_scope() -> TrainingScope | None:
    """Return the scope of the round that trains in this thread, or None."""
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
