"""``PrivacyGuard``: an ordinary PyTorch loop becomes DP-SGD, with a budget that cannot be overrun."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from coreason_enclave.accounting import compose_epsilon
from coreason_enclave.accounting.calibration import calibrate_noise, last_affordable_step
from coreason_enclave.accounting.events import Event
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.errors import ConfigurationError, PrivacyBudgetExceededError, UnsafeTrainingError
from coreason_enclave.ledger.interface import PrivacyLedger
from coreason_enclave.ledger.records import NoiseSource, RoundPlan
from coreason_enclave.privacy.iterate import IteratedOptimizer, PrivateIterate
from coreason_enclave.privacy.kernel import GradientKernel
from coreason_enclave.privacy.kernel.blocks import declared_blocks
from coreason_enclave.privacy.kernel.layers import require_recordable
from coreason_enclave.privacy.kernel.rehearsal import Rehearsal
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

__all__ = ["PrivacyGuard", "require_separable"]

_MAX_STEPS = 1_000_000


class PrivacyGuard:
    """Makes model, optimizer and loader private, and stops before the step that would overspend.

    Inside a session, reservation, randomness, delta, unit and denominators come from the accepted job. Outside one,
    a ledger and one of its registered lineages have to be given: an
    :class:`~coreason_enclave.ledger.EphemeralLedger` for experiments, whose claims say so.

    Args:
        config: the job's privacy configuration.
        ledger, lineage: only outside a session.
        total_steps: outside a session, the schedule that is reserved; default: all that ``target_epsilon`` affords.
        unsafe_seed: outside a session, a 32-byte key for reproducible sampling and noise; recorded as unsafe.

    Raises:
        ConfigurationError: nothing to account against. UnsafeTrainingError: not the accepted job's configuration.
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
            raise UnsafeTrainingError(
                "inside a session the guard uses the accepted job's privacy configuration and ledger"
            )
        self._kernel: GradientKernel | None = None

    @property
    def steps_affordable(self) -> int:
        """How many steps the reservation holds in all."""
        return self._scope.gate.step_limit

    @property
    def steps_taken(self) -> int:
        """How many steps were charged so far."""
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
        """The private three. The model keeps its class and parameter names; loop over the returned loader.

        Batches have a public size: the rows that were drawn, and zero rows, which count for nothing. The loss is a mean
        over the batch.

        Outside a session, model and loss are shown to keep rows apart before a row is read: with ``criterion``, at
        once; without, the loader's first four batches are synthetic, and a step on them changes and charges nothing.

        Steps are taken by the guard's own copy of ``optimizer``, whose hyperparameters are fixed here. ``schedule``
        makes one of torch's learning rate schedulers, which is played through here for every step that is reserved.

        Inside a session, the model holds the global weights, and one attach serves the whole round.

        Each step of the returned optimizer also adds the term of the job's strategy, after the noise: a loop needs no
        line for FED_PROX or SCAFFOLD.

        Raises:
            UnsafeTrainingError: a layer, a function or the loss mixes rows (it is named, a layer with its replacement),
                the loader samples by itself, the optimizer holds other parameters than the model, person ids are
                missing, or the strategy has no term for a parameter, because it is none of the global model's. Inside a
                session also: another model than the global one, an optimizer that has stepped before, or a second
                attach.
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
        """The rehearsal that is still to come, and its rows: None in a session's own training, which follows one."""
        if self._scope.rehearsal is not None:
            rehearsal = self._scope.rehearsal
            if not rehearsal.complete:
                return rehearsal, None
            if kernel.signature not in rehearsal.shown:
                raise UnsafeTrainingError("this is another model than the one that the loop was rehearsed with")
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
        """Epsilon of everything this job ran so far, earlier rounds included, at :attr:`delta`, by PLD.

        Raises:
            UnsafeTrainingError: nothing is attached: there is no training that a number could describe.
        """
        if self._kernel is None:
            raise UnsafeTrainingError("attach(model=…, optimizer=…, data_loader=…) first: nothing is private yet")
        return compose_epsilon([*self._scope.reservation.prior_events, self._scope.event()], self.delta).epsilon

    @property
    def delta(self) -> float:
        """The failure probability that :meth:`get_current_epsilon` holds at."""
        delta = self._scope.config.delta
        if delta is None:
            raise ConfigurationError("the accepted configuration states no delta")
        return delta

    def event(self) -> Event:
        """The privacy event of the steps taken under this reservation."""
        return self._scope.event()

    def detach(self) -> None:
        """Give the model back as it was; spending and history stay."""
        if self._kernel is not None:
            self._kernel.detach()
            self._kernel = None

    def close(self) -> None:
        """Detach and, outside a session, commit what was run; unclosed guards stay charged in full."""
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
        """The weights that private steps are about to move; None without a mechanism, where nothing is to be kept."""
        scope = self._scope
        if scope.config.mechanism is Mechanism.NON_PRIVATE:
            if schedule is not None:
                raise UnsafeTrainingError("a schedule belongs to private training: step one of your own")
            return None
        if scope.base is not None and scope.iterates:
            raise UnsafeTrainingError("a model is attached already: one attach serves the whole round")
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
    """Each row's gradient must depend on that row alone; name the layers where it does not, and their fix.

    Buffers are refused with them: what a layer writes there from private rows would leave with the weights, un-noised.
    """
    require_recordable(model)
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        raise UnsafeTrainingError(
            f"the model has buffers ({', '.join(buffers[:3])}), which no noise is added to: keep constants as plain "
            "attributes, and replace layers that keep statistics of their inputs"
        )


def _trainable_names(model: torch.nn.Module, optimizer: Optimizer) -> dict[torch.nn.Parameter, str]:
    if isinstance(optimizer, UnitClippingOptimizer):
        raise UnsafeTrainingError("this optimizer is private already: attach the original one")
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]
    if not names or {id(p) for p in held} != {id(p) for p in names}:
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
    """Reserve outside a session: one job of one round, all of its steps."""
    if ledger is None or lineage is None:
        raise ConfigurationError(
            "outside a session a PrivacyGuard needs ledger= and lineage=: a SqliteLedger, or an EphemeralLedger for "
            "experiments, with the lineage registered"
        )
    registration = ledger.registration(lineage)
    if config.mechanism is not Mechanism.DP_SGD or config.target_epsilon is None:
        raise ConfigurationError("outside a session only DP_SGD is offered")
    if registration.unit is not PrivacyUnit.RECORD:
        raise ConfigurationError("outside a session only record-level lineages are offered: person ids come from a job")
    if config.unit not in (None, registration.unit):
        raise UnsafeTrainingError(
            f"the lineage protects a {registration.unit}, the configuration asks for {config.unit}"
        )
    delta = registration.caps.job_delta if config.delta is None else config.delta
    noise, steps = _schedule(config, delta, total_steps)
    config = config.model_copy(update={"delta": delta, "unit": registration.unit, "noise_multiplier": noise})
    key = standalone_key(unsafe_seed)
    job_digest = sha256_hex(secrets.token_bytes(32))
    plan = RoundPlan(
        job_id=f"guard-{job_digest[:16]}",
        job_digest=job_digest,
        round_number=1,
        unit=registration.unit,
        noise_multiplier=noise,
        sample_rate=config.sample_rate,
        steps=steps,
        total_steps=steps,
        target_epsilon=_required(config.target_epsilon),
        delta=delta,
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


def _schedule(config: PrivacyConfig, delta: float, total_steps: int | None) -> tuple[float, int]:
    """Noise multiplier and number of steps, each derived from the other where it is left out."""
    target = _required(config.target_epsilon)
    if config.noise_multiplier is not None:
        if total_steps is not None:
            return config.noise_multiplier, total_steps
        steps = last_affordable_step(config.noise_multiplier, config.sample_rate, target, delta, max_steps=_MAX_STEPS)
        if steps == 0:
            raise PrivacyBudgetExceededError(f"not one step is affordable under target epsilon {target:g}")
        return config.noise_multiplier, steps
    if total_steps is None:
        raise ConfigurationError("give noise_multiplier, or total_steps to calibrate it from target_epsilon")
    return calibrate_noise(target, delta, config.sample_rate, total_steps), total_steps


def _required(value: float | None) -> float:
    if value is None:
        raise ConfigurationError("DP_SGD needs target_epsilon")
    return value
