"""The differential-privacy engine: DP-SGD over a configuration, its accounting, and a search for the epsilon of a goal.

>>> import torch
>>> config = EngineConfig(
...     max_grad_norm=1.0, noise_multiplier=1.0, sample_rate=0.05, steps=68, delta=1e-5, unit="record",
...     neighboring_relation="add_or_remove_one", accountant="PLD")
>>> features = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
>>> labels = (features.sum(dim=1) > 0).long()
>>> task = Task(make_model=lambda: torch.nn.Linear(2, 2), loss=torch.nn.functional.cross_entropy, learning_rate=1.0,
...             features=features[:1000], labels=labels[:1000], nominal_units=1000, data_is_public=True,
...             public_features=features[1000:], public_labels=labels[1000:])
>>> engine = DifferentialPrivacyEngine(config, task)
>>> result = engine.train()
>>> epsilon, delta = engine.stepwise_accounting()
>>> print(f"accuracy above 0.9: {result.accuracy > 0.9}, epsilon {epsilon:.2f} at delta {delta:g} per {config.unit}")
accuracy above 0.9: True, epsilon 3.00 at delta 1e-05 per record
>>> epsilon, noise_multiplier = engine.epsilon_targeting(accuracy_goal=0.9, delta=1e-5)

Training is ordinary PyTorch under a :class:`~coreason_enclave.privacy.PrivacyGuard`. The engine reports epsilon by
PLD, a tight bound, or by RDP, the modern form of the moments accountant (Mironov, 2017; Abadi et al., 2016).
``docs/TUNING.md`` explains every parameter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from aegis import tuning
from aegis.errors import InvalidEngine
from aegis.tuning import Account, Calibration, Comparison, EngineConfig, Spent, StepSpent
from coreason_enclave.accounting import Accountant, Guarantee
from coreason_enclave.ledger import JobClaim, NoiseSource, PrivacyLedger
from coreason_enclave.privacy import (
    OpacusAccountant,
    PrivacyGuard,
    TrainingScope,
    enter,
    opacus_epsilon,
    standalone_key,
    standalone_scope,
)
from coreason_enclave.schemas import PrivacyUnit

__all__ = ["Calibration", "DifferentialPrivacyEngine", "EngineConfig", "Task", "TrainingResult"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model, its data, and a public set for measuring utility.

    Attributes:
        make_model: returns a new, untrained model, with initial weights drawn under ``model_seed``.
        loss: maps outputs and labels to the batch's mean loss.
        features, labels: the training rows, first dimension n.
        public_features, public_labels: a **public** evaluation set, disjoint from the training rows: measurements on
            this set leave without noise.
        nominal_units: the declared, public number of units in ``features``; the denominator of every step.
        data_is_public: True if the training rows may be published, or were set aside for tuning outside every guarantee
            of this study. If False, tuning on the rows warns.
        learning_rate, momentum: of stochastic gradient descent.
        average_last: number of last steps whose mean gives the returned weights: post-processing, free of privacy cost.
        unit_ids: shape (n,), the person behind each row; required for unit person, refused for unit record.

    Raises:
        InvalidEngine: data is missing or does not match, or a number is out of range.
    """

    make_model: Callable[[], torch.nn.Module]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    features: torch.Tensor
    labels: torch.Tensor
    public_features: torch.Tensor
    public_labels: torch.Tensor
    nominal_units: int
    data_is_public: bool
    learning_rate: float
    momentum: float = 0.0
    average_last: int = 1
    unit_ids: Any = None
    model_seed: int = 0

    def __post_init__(self) -> None:
        rows, public_rows = len(self.features), len(self.public_features)
        problems = {
            "features and labels must have the same number of rows, at least one": not 0 < rows == len(self.labels),
            "public_features and public_labels must have the same number of rows, at least one": not 0
            < public_rows
            == len(self.public_labels),
            f"learning_rate must be positive, got {self.learning_rate}": not 0 < self.learning_rate < math.inf,
            f"momentum must be in [0, 1), got {self.momentum}": not 0 <= self.momentum < 1,
            "average_last and nominal_units must be at least 1": self.average_last < 1 or self.nominal_units < 1,
        }
        for problem, is_invalid in problems.items():
            if is_invalid:
                raise InvalidEngine(problem)

    def initial_model(self) -> torch.nn.Module:
        """Return the untrained model, with the same weights each time. Torch's own generator keeps its state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.model_seed)
            return self.make_model()

    def accuracy(self, model: torch.nn.Module) -> float:
        """Return the share of correctly classified public examples: by arg max, or by sign for a single output."""
        model.eval()
        with torch.no_grad():
            outputs = model(self.public_features)
        binary = outputs.ndim == 1 or outputs.shape[-1] == 1
        chosen = (outputs.reshape(len(outputs)) > 0).long() if binary else outputs.argmax(dim=-1)
        return float((chosen == self.public_labels.reshape(chosen.shape)).double().mean())


@dataclass(frozen=True)
class TrainingResult:
    """One private training: model, accuracy on the public evaluation set, guarantee, and the ledger's claim."""

    model: torch.nn.Module
    accuracy: float
    steps: int
    guarantee: Guarantee
    claim: JobClaim


@dataclass(frozen=True)
class _Run:
    """One reservation, open or spent."""

    account: Account
    scope: TrainingScope
    guard: PrivacyGuard

    def commit(self) -> JobClaim:
        self.guard.detach()
        reservation, ledger = self.scope.reservation, self.account.ledger
        ledger.commit(reservation.reservation_id, self.scope.event(), None)
        return ledger.job_claim(reservation.lineage, reservation.job_id)


class DifferentialPrivacyEngine:
    """DP-SGD by Opacus over one :class:`EngineConfig`, with running accounting; training needs a :class:`Task`."""

    def __init__(self, config: EngineConfig, task: Task | None = None) -> None:
        self.config = config
        self.task = task
        self._runs: list[_Run] = []
        self._open: _Run | None = None

    @property
    def steps_taken(self) -> int:
        """Steps charged so far, over all trainings of this engine."""
        return sum(run.scope.gate.steps_taken for run in self._runs)

    def train(
        self,
        *,
        ledger: PrivacyLedger | None = None,
        lineage: str | None = None,
        unsafe_seed: bytes | None = None,
        on_step: Callable[[int], object] | None = None,
    ) -> TrainingResult:
        """Train the task's model for the whole schedule.

        Args:
            ledger, lineage: the account, charged before any row is read. By default, a ledger in memory for
                experiments.
            unsafe_seed: 32 bytes that make sampling and noise reproducible. The guarantee is void against anyone who
                knows the seed, and the ledger records the fact.
            on_step: called after each step with the number of steps taken.

        Raises:
            PrivacyBudgetExceededError: the lineage cannot pay for the schedule; no step has run.
            InvalidEngine: no task, no noise multiplier, or a lineage of another size.
        """
        task = self._required_task()
        account = self._account(ledger, lineage)
        model = task.initial_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate, momentum=task.momentum)
        rows = TensorDataset(task.features, task.labels)
        run = self._reserved(account, task.unit_ids, unsafe_seed)
        try:
            private, stepper, loader = run.guard.attach(
                model=model,
                optimizer=optimizer,
                data_loader=DataLoader(rows, batch_size=1),
                criterion=task.loss,
            )
            _run_steps(task, self.config.steps, private, stepper, loader, on_step or (lambda step: None))
        finally:
            self.close()
        steps = run.scope.gate.steps_taken
        return TrainingResult(model, task.accuracy(model), steps, tuning.guarantee_of(self.config, steps), run.commit())

    def attach(
        self,
        *,
        model: torch.nn.Module,
        optimizer: Optimizer,
        data_loader: DataLoader[Any],
        ledger: PrivacyLedger,
        lineage: str,
        unit_ids: Any = None,
        unsafe_seed: bytes | None = None,
        criterion: Callable[..., torch.Tensor] | None = None,
    ) -> tuple[torch.nn.Module, Optimizer, DataLoader[Any]]:
        """Return private versions of model, optimizer and loader, for the caller's own training loop over the loader.

        Call :meth:`close` after the loop to commit the steps taken. Without ``criterion`` (the loop's loss), the
        loader's first four batches serve as a rehearsal: see :class:`~coreason_enclave.privacy.PrivacyGuard`.

        Raises the errors of :meth:`train` and :meth:`coreason_enclave.privacy.PrivacyGuard.attach`.
        """
        run = self._reserved(Account(ledger, lineage), unit_ids, unsafe_seed)
        try:
            return run.guard.attach(model=model, optimizer=optimizer, data_loader=data_loader, criterion=criterion)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Take the hooks off the model and commit the steps taken; a second call has no effect."""
        if self._open is not None:
            self._open.commit()
            self._open = None

    def stepwise_accounting(self, steps: int | None = None, *, accountant: Accountant | None = None) -> Spent:
        """Return the running (epsilon, delta), as if every step of this engine had used the same rows.

        Args:
            steps: number of steps from the start of the schedule, taken or still ahead; by default the steps taken.
            accountant: ``PLD`` or ``RDP``; by default the configuration's.

        Raises:
            InvalidEngine: no training was attached that a number could describe; or the caller asked for GDP.
        """
        if steps is None and not self._runs:
            raise InvalidEngine("no training yet: call train() or attach() first, or give steps= for a forecast")
        counted = self.steps_taken if steps is None else steps
        return Spent(tuning.epsilon_of(self.config, counted, accountant or self.config.accountant), self.config.delta)

    def trajectory(
        self, steps: Iterable[int] | None = None, *, accountant: Accountant | None = None
    ) -> tuple[StepSpent, ...]:
        """Return (step, epsilon, delta) after each of ``steps``; by default after each step taken."""
        requested = range(1, self.steps_taken + 1) if steps is None else steps
        return tuple(StepSpent(step, *self.stepwise_accounting(step, accountant=accountant)) for step in requested)

    def compared(self, accountant: OpacusAccountant, steps: int | None = None) -> Comparison:
        """Return the number of Opacus' own ``rdp``, ``prv`` or ``gdp`` accountant, for comparison only."""
        event, delta = self.config.event(self.steps_taken if steps is None else steps), self.config.delta
        epsilon = opacus_epsilon(accountant, event, delta)
        name = f"opacus.{accountant}"
        return Comparison(epsilon=epsilon, delta=delta, accountant=name, under_reports=accountant == "gdp")

    def epsilon_targeting(
        self,
        accuracy_goal: float,
        delta: float,
        *,
        epsilon_range: tuple[float, float] = (0.05, 20.0),
        precision: float = 1.25,
        repetitions: int = 3,
        charge_to: PrivacyLedger | None = None,
        lineage: str | None = None,
        unsafe_seed: bytes | None = None,
    ) -> Calibration:
        """Find the smallest epsilon, and its noise multiplier, whose trained model meets ``accuracy_goal``.

        Trains for real along the privacy-utility curve: upwards in factors of three, then by bisection until the last
        miss is within ``precision`` below the answer. Each point is the median accuracy of ``repetitions`` trainings.

        Args:
            accuracy_goal: in (0, 1], on the task's public evaluation set.
            delta: the delta of the stated epsilon; replaces the configuration's.
            charge_to, lineage: the account that pays for every trial, reserved and committed like any other job.
            unsafe_seed: 32 bytes for a reproducible search.

        Warns:
            PrivacySpentByTuning: the rows are not public: the trials spend privacy that the answer does not include.

        Raises:
            GoalOutOfReach: carries the reachable accuracy.
            TuningStopped: the ledger cannot pay for a further trial.
            InvalidEngine: no task, or a number out of range.
        """
        task = self._required_task()
        account = self._account(charge_to, lineage)
        tuning.warn_of_cost(data_is_public=task.data_is_public, charged_to=lineage)

        def train(config: EngineConfig, number: int) -> float:
            key = tuning.trial_key(unsafe_seed, number)
            trial = DifferentialPrivacyEngine(config, task)
            return trial.train(ledger=charge_to, lineage=lineage, unsafe_seed=key).accuracy

        return tuning.find_calibration(
            self.config.changed(delta=delta),
            accuracy_goal,
            epsilon_range=account.within_caps(epsilon_range),
            precision=precision,
            repetitions=repetitions,
            train=train,
            charged_to=lineage,
        )

    def _required_task(self) -> Task:
        if self.task is None:
            raise InvalidEngine("training and utility need a task: create DifferentialPrivacyEngine(config, task)")
        return self.task

    def _account(self, ledger: PrivacyLedger | None, lineage: str | None) -> Account:
        task = self._required_task()
        size, public = task.nominal_units, task.data_is_public
        return tuning.account_for(self.config, ledger, lineage, nominal_units=size, public=public)

    def _reserved(self, account: Account, unit_ids: Any, unsafe_seed: bytes | None) -> _Run:
        if self._open is not None:
            raise InvalidEngine("another training is attached: call its close() first")
        if (unit_ids is not None) != (self.config.unit is PrivacyUnit.PERSON):
            raise InvalidEngine("unit person needs unit_ids for every row; unit record takes none")
        source = NoiseSource.SITE_KEYSTREAM if unsafe_seed is None else NoiseSource.UNSAFE_SEEDED
        key, name = standalone_key(unsafe_seed), tuning.name_of_draws(self.config)
        reservation = tuning.reserve(self.config, account, source)
        scope = standalone_scope(
            tuning.privacy_config(self.config, reservation),
            reservation,
            key=key,
            name=name,
            nominal_units=account.registration.nominal_units,
            unit_of_row=unit_ids,
        )
        with enter(scope):
            self._open = _Run(account, scope, PrivacyGuard(scope.config))
        self._runs.append(self._open)
        return self._open


def _run_steps(
    task: Task,
    steps: int,
    model: torch.nn.Module,
    optimizer: Optimizer,
    loader: DataLoader[Any],
    on_step: Callable[[int], object],
) -> None:
    """Run the schedule, and write the average over its last steps into the model."""
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    total = torch.zeros(())
    averaged = min(task.average_last, steps)
    for step, (features, labels) in zip(range(1, steps + 1), endless, strict=False):
        optimizer.zero_grad()
        task.loss(model(features), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        on_step(step)
        if step > steps - averaged:
            total = total + torch.nn.utils.parameters_to_vector(model.parameters()).detach().double()
    dtype = next(model.parameters()).dtype
    torch.nn.utils.vector_to_parameters((total / averaged).to(dtype), model.parameters())
