"""``PrivacyGuard``: turns an ordinary PyTorch loop into DP-SGD whose budget cannot be overrun."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from coreason_enclave.accounting import Event, compose_epsilon, last_affordable_step, resolve_privacy
from coreason_enclave.crypto import sha256_hex
from coreason_enclave.errors import ConfigurationError, PrivacyBudgetExceededError, UnsafeTrainingError
from coreason_enclave.ledger import LineageRegistration, NoiseSource, PrivacyLedger, RoundPlan
from coreason_enclave.privacy.iterate import IteratedOptimizer, PrivateIterate
from coreason_enclave.privacy.kernel import GradientKernel, Rehearsal, declared_blocks, require_recordable
from coreason_enclave.privacy.optimizer import UnitClippingOptimizer
from coreason_enclave.privacy.sampling import (
    PoissonUnitSampler,
    UnitIndex,
    private_loader,
    require_convertible,
)
from coreason_enclave.privacy.schedules import Schedule
from coreason_enclave.privacy.scope import TrainingScope, current_scope
from coreason_enclave.privacy.standalone import over_rows, standalone_key, standalone_scope
from coreason_enclave.privacy.synthetic import rehearse_criterion, synthetic_like
from coreason_enclave.schemas import Mechanism, PrivacyConfig, PrivacyUnit

_MAX_STEPS = 1_000_000


class PrivacyGuard:
    """Makes model, optimizer and loader private, and stops before the step that would overspend.

    Inside a session, reservation, randomness, delta, unit and denominators come from the accepted job. Outside a
    session, the caller passes a ledger and one of its registered lineages. An
    :class:`~coreason_enclave.ledger.EphemeralLedger` suits experiments; its claims say so.

    Args:
        config: the job's privacy configuration.
        ledger, lineage: only outside a session.
        total_steps: outside a session, the number of steps to reserve; default: all that ``target_epsilon`` affords.
        unsafe_seed: outside a session, a 32-byte key for reproducible sampling and noise; marked unsafe in the ledger.

    Raises:
        ConfigurationError: outside a session, ledger or lineage are missing, or the configuration does not suit them.
        UnsafeTrainingError: inside a session, a ledger or a configuration other than the accepted job's; outside,
            another privacy unit than the lineage's.
        PrivacyBudgetExceededError: outside a session, the target epsilon affords no step.
    """

    def __init__(
        self,
        config: PrivacyConfig,
        *,
        ledger: PrivacyLedger | None = None,
        lineage: str | None = None,
        total_steps: int | None = None,
        unsafe_seed: bytes | None = None,
    ) -> None:
        scope = current_scope()
        self._ledger = ledger if scope is None else None
        self._scope = _standalone(config, ledger, lineage, total_steps, unsafe_seed) if scope is None else scope
        if scope is not None and (ledger is not None or config not in (scope.config, scope.requested)):
            raise UnsafeTrainingError("inside a session, the guard uses the job's privacy configuration and ledger")
        self._kernel: GradientKernel | None = None

    @property
    def steps_affordable(self) -> int:
        """Total number of steps in the reservation."""
        return self._scope.gate.step_limit

    @property
    def steps_taken(self) -> int:
        """Number of steps charged so far."""
        return self._scope.gate.steps_taken

    def attach(
        self,
        *,
        model: torch.nn.Module,
        optimizer: Optimizer,
        data_loader: DataLoader[Any],
        schedule: Schedule | None = None,
        criterion: Callable[..., torch.Tensor] | None = None,
    ) -> tuple[torch.nn.Module, Optimizer, DataLoader[Any]]:
        """Return the private model, optimizer and loader; loop over the returned loader.

        The model keeps its class and parameter names. The loss must average over the batch.

        - **Batch size**: public. Each batch holds the sampled rows and zero rows, which contribute nothing.
        - **Rehearsal**: outside a session, the guard checks on synthetic rows that model and loss keep rows apart,
          before training on a real row. With ``criterion``, the check runs at once. Without, the loader's first
          four batches hold synthetic rows, and a step on them changes and charges nothing.
        - **Optimizer**: the guard steps its own copy of ``optimizer``, with hyperparameters fixed here.
        - **Schedule**: ``schedule`` makes a torch learning rate scheduler. The guard plays the scheduler through here,
          for every reserved step.
        - **Session**: inside a session, the model holds the global weights, and one attach serves the whole round.
        - **Strategy**: each step of the returned optimizer adds the term of the job's strategy after the noise. A loop
          needs no extra line for FED_PROX or SCAFFOLD.

        Raises:
            UnsafeTrainingError: model, loss, loader or optimizer do not fit private training:

                - A layer, a function or the loss mixes rows (the message names the culprit, and a layer's replacement).
                - The loader samples by itself, or person ids are missing.
                - The optimizer holds other parameters than the model.
                - The strategy has no term for a parameter outside the global model.
                - Inside a session: the model differs from the global model, the optimizer has stepped before, or a
                  model has already been attached.
        """
        require_convertible(data_loader)
        require_separable(model)
        names = _trainable_names(model, optimizer)
        if self._scope.drift is not None:
            self._scope.drift.require_fits(names)
        iterate = self._iterate_from(model, optimizer, names, schedule)
        self.detach()
        self._scope = over_rows(self._scope, data_loader.dataset)
        index = UnitIndex(self._scope.unit_of_row, len(data_loader.dataset))  # type: ignore[arg-type]
        rate, nominal = self._scope.config.sample_rate, self._scope.nominal_units
        kernel = GradientKernel(model, declared_blocks(rate, nominal), one_row=self._scope.unit_of_row is None)
        self._kernel = kernel
        model.train()
        rehearsal, synthetic = self._rehearsal(kernel, data_loader, criterion)
        rehearse = None if rehearsal is None else partial(rehearsal.draw_if_pending, kernel)
        sampler = PoissonUnitSampler(index, rate, self._scope.keystream, self._scope.gate, rehearse)
        private = self._private_optimizer(optimizer, names, rate * nominal, iterate, kernel, rehearsal)
        return model, private, private_loader(data_loader, sampler, kernel, synthetic)

    def _rehearsal(
        self, kernel: GradientKernel, loader: DataLoader[Any], criterion: Callable[..., torch.Tensor] | None
    ) -> tuple[Rehearsal | None, Dataset[Any] | None]:
        """Return the pending rehearsal and its rows; None in a session's own training, after a passed rehearsal."""
        if self._scope.rehearsal is not None:
            rehearsal = self._scope.rehearsal
            if not rehearsal.complete:
                return rehearsal, None
            if kernel.signature not in rehearsal.shown:
                raise UnsafeTrainingError("this model is not the model that the loop was rehearsed with")
            return None, None
        rehearsal = Rehearsal(kernel.blocks, ends_loop=False)
        synthetic = synthetic_like(loader.dataset, rehearsal.rows_needed)
        if criterion is None:
            return rehearsal, synthetic
        try:
            rehearse_criterion(rehearsal, kernel, synthetic, loader.collate_fn, criterion)
        except UnsafeTrainingError:
            self.detach()
            raise
        return None, None

    def check_budget(self) -> None:
        """Raise :class:`PrivacyBudgetExceededError` before a step that would overspend; see :class:`StepGate`."""
        self._scope.gate.check()

    def get_current_epsilon(self) -> float:
        """Return epsilon (PLD) at :attr:`delta` of everything this job has run, earlier rounds included.

        Raises:
            UnsafeTrainingError: no model is attached, so no training exists to account for.
        """
        if self._kernel is None:
            raise UnsafeTrainingError("training is not private: call attach(model=…, optimizer=…, data_loader=…) first")
        return compose_epsilon([*self._scope.reservation.prior_events, self._scope.event()], self.delta).epsilon

    @property
    def delta(self) -> float:
        """The failure probability delta behind :meth:`get_current_epsilon`."""
        delta = self._scope.config.delta
        if delta is None:
            raise ConfigurationError("the accepted configuration states no delta")
        return delta

    def event(self) -> Event:
        """Return the privacy event of the steps taken under this reservation."""
        return self._scope.event()

    def detach(self) -> None:
        """Restore the model's original layers; spending and history stay."""
        if self._kernel is not None:
            self._kernel.detach()
            self._kernel = None

    def close(self) -> None:
        """Detach and, outside a session, commit the steps that ran; an unclosed guard stays charged in full."""
        self.detach()
        if self._ledger is not None:
            self._ledger.commit(self._scope.reservation.reservation_id, self._scope.event(), None)
            self._ledger = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _iterate_from(
        self,
        model: torch.nn.Module,
        optimizer: Optimizer,
        names: dict[torch.nn.Parameter, str],
        schedule: Schedule | None,
    ) -> PrivateIterate | None:
        """Return the iterate that private steps will move; None without a mechanism, where no iterate exists."""
        scope = self._scope
        if scope.config.mechanism is Mechanism.NON_PRIVATE:
            if schedule is not None:
                raise UnsafeTrainingError("a schedule needs private training: step your own schedule instead")
            return None
        if scope.base is not None and scope.iterates:
            raise UnsafeTrainingError("a model is already attached: call attach once for the whole round")
        limit = scope.gate.step_limit
        iterate = PrivateIterate(model, optimizer, names, base=scope.base, schedule=schedule, step_limit=limit)
        scope.iterates.append(iterate)
        return iterate

    def _private_optimizer(
        self,
        optimizer: Optimizer,
        names: dict[torch.nn.Parameter, str],
        expected_units: float,
        iterate: PrivateIterate | None,
        kernel: GradientKernel,
        rehearsal: Rehearsal | None,
    ) -> Optimizer:
        config = self._scope.config
        settings: dict[str, Any] = {
            "kernel": kernel,
            "rehearsal": rehearsal,
            "names": names,
            "gate": self._scope.gate,
            "expected_units": expected_units,
            "drift": self._scope.drift,
        }
        norm = float("inf") if config.max_grad_norm is None else config.max_grad_norm
        if iterate is None:
            return UnitClippingOptimizer(optimizer, max_grad_norm=norm, noise_multiplier=0.0, **settings)
        settings |= {"keystream": self._scope.keystream, "noise_multiplier": config.noise_multiplier}
        return IteratedOptimizer(optimizer, iterate=iterate, max_grad_norm=norm, **settings)


def require_separable(model: torch.nn.Module) -> None:
    """Raise unless each row's gradient depends on the row alone; name offending layers and their fix.

    Buffers are refused as well: values that a layer derives from private rows would leave with the weights, un-noised.
    """
    require_recordable(model)
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        raise UnsafeTrainingError(
            f"the model has buffers ({', '.join(buffers[:3])}), to which the guard adds no noise: store constants as "
            "plain attributes, and replace layers that store statistics of their inputs"
        )


def _trainable_names(model: torch.nn.Module, optimizer: Optimizer) -> dict[torch.nn.Parameter, str]:
    if isinstance(optimizer, UnitClippingOptimizer):
        raise UnsafeTrainingError("this optimizer is already private: attach the original optimizer")
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    stepped = [
        parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad
    ]
    if not names or {id(p) for p in stepped} != {id(p) for p in names}:
        raise UnsafeTrainingError("the optimizer must hold exactly the model's trainable parameters")
    if any(parameter.device.type != "cpu" for parameter in names):
        raise UnsafeTrainingError("parameters must be on the CPU: clipping and noise are computed there in float64")
    return names


def _standalone(
    config: PrivacyConfig,
    ledger: PrivacyLedger | None,
    lineage: str | None,
    total_steps: int | None,
    unsafe_seed: bytes | None,
) -> TrainingScope:
    """Reserve outside a session: one job of one round, with all its steps."""
    if ledger is None or lineage is None:
        raise ConfigurationError(
            "outside a session, pass ledger= (SqliteLedger or, to experiment, EphemeralLedger) and its lineage="
        )
    registration = ledger.registration(lineage)
    if config.mechanism is not Mechanism.DP_SGD or config.target_epsilon is None:
        raise ConfigurationError("outside a session, only DP_SGD is supported")
    if registration.unit is not PrivacyUnit.RECORD:
        raise ConfigurationError("outside a session, lineages must be record-level: person ids come from a job")
    if config.unit not in (None, registration.unit):
        raise UnsafeTrainingError(f"the lineage's unit is {registration.unit}, the configuration's {config.unit}")
    config, steps = _resolved(config, registration, total_steps)
    key = standalone_key(unsafe_seed)
    job_digest = sha256_hex(secrets.token_bytes(32))
    plan = RoundPlan(
        job_id=f"guard-{job_digest[:16]}",
        job_digest=job_digest,
        round_number=1,
        unit=registration.unit,
        noise_multiplier=_required(config.noise_multiplier),
        sample_rate=config.sample_rate,
        steps=steps,
        total_steps=steps,
        target_epsilon=_required(config.target_epsilon),
        delta=_required(config.delta),
        noise_source=NoiseSource.SITE_KEYSTREAM if unsafe_seed is None else NoiseSource.UNSAFE_SEEDED,
    )
    reservation = ledger.reserve(lineage, plan, sha256_hex(job_digest.encode()), require_all=False)
    return standalone_scope(
        config,
        reservation,
        key=key,
        name=job_digest if unsafe_seed is None else config.digest(),
        nominal_units=registration.nominal_units,
        unit_of_row=None,
    )


def _resolved(
    config: PrivacyConfig, registration: LineageRegistration, total_steps: int | None
) -> tuple[PrivacyConfig, int]:
    """Return the configuration with no value left open, and the steps: noise from given steps, steps from noise."""
    if config.noise_multiplier is None and total_steps is None:
        raise ConfigurationError("give noise_multiplier, or total_steps to calibrate it from target_epsilon")
    delta, unit = registration.caps.job_delta, registration.unit
    config = resolve_privacy(config, delta=delta, total_steps=total_steps or 0, unit=unit)
    if total_steps is not None:
        return config, total_steps
    noise, target, delta = _required(config.noise_multiplier), _required(config.target_epsilon), _required(config.delta)
    steps = last_affordable_step(noise, config.sample_rate, target, delta, max_steps=_MAX_STEPS)
    if steps == 0:
        raise PrivacyBudgetExceededError(f"not one step is affordable under target epsilon {target:g}")
    return config, steps


def _required(value: float | None) -> float:
    if value is None:
        raise ConfigurationError("DP_SGD needs target_epsilon")
    return value
