"""``PrivacyGuard`` around ordinary PyTorch: what it refuses, what it counts, and where it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
from coreason_enclave.errors import ConfigurationError, PrivacyBudgetExceededError, UnsafeTrainingError
from coreason_enclave.ledger import EphemeralLedger, LineageRegistration, NoiseSource
from coreason_enclave.models import SmallCNN
from coreason_enclave.privacy import PrivacyGuard
from coreason_enclave.privacy.scope import TrainingScope, enter
from coreason_enclave.privacy.step_gate import StepGate
from coreason_enclave.schemas import PrivacyConfig, PrivacyUnit

Make = Callable[..., TrainingScope]
CONFIG = PrivacyConfig(mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=1.0, max_grad_norm=1.0)


class Loop:
    """An ordinary training loop under a guard, one step at a time."""

    def __init__(self, guard: PrivacyGuard, model: torch.nn.Module | None = None, rows: int = 1000) -> None:
        torch.manual_seed(0)
        self.guard = guard
        self.model = torch.nn.Linear(2, 1) if model is None else model
        self.data = DataLoader(TensorDataset(torch.randn(rows, 2), torch.randn(rows, 1)))
        self.attach()

    def attach(self) -> None:
        plain = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.model, self.optimizer, self.loader = self.guard.attach(
            model=self.model,
            optimizer=plain,
            data_loader=self.data,
            criterion=torch.nn.functional.mse_loss,
        )
        self.batches: Iterator[Any] = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def backward(self) -> None:
        features, targets = next(self.batches)
        torch.nn.functional.mse_loss(self.model(features), targets).backward()

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()

    def weights(self) -> torch.Tensor:
        return torch.nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()


@pytest.fixture
def loop(ledger: EphemeralLedger) -> Loop:
    return Loop(PrivacyGuard(CONFIG, ledger=ledger, lineage="clinic"))


# --- the budget --------------------------------------------------------------------------------------------------


def test_sixty_eight_steps_end_exactly_at_the_cap_and_the_next_one_does_not_run(loop: Loop) -> None:
    for _ in range(68):
        loop.step()
        loop.guard.check_budget()
    before = loop.weights()

    with pytest.raises(PrivacyBudgetExceededError, match="step 69 is not affordable and did not run"):
        loop.step()

    assert torch.equal(loop.weights(), before)
    assert loop.guard.steps_taken == loop.guard.steps_affordable == 68
    assert loop.guard.get_current_epsilon() <= 3.0
    assert compose_epsilon([PoissonSampledGaussian(1.0, 0.05, 69)], 1e-5).epsilon > 3.0


def test_after_a_refusal_every_check_refuses(loop: Loop) -> None:
    for _ in range(68):
        loop.step()
    with pytest.raises(PrivacyBudgetExceededError):
        next(loop.batches)

    with pytest.raises(PrivacyBudgetExceededError):
        loop.guard.check_budget()
    with pytest.raises(PrivacyBudgetExceededError):
        loop.optimizer.step()


def test_a_batch_drawn_elsewhere_does_not_get_a_step_past_the_limit() -> None:
    gate = StepGate(0, 3.0)

    with pytest.raises(PrivacyBudgetExceededError):
        gate.check()
    with pytest.raises(PrivacyBudgetExceededError):
        gate.take_step()


def test_epsilon_is_that_of_the_steps_taken(loop: Loop) -> None:
    for _ in range(3):
        loop.step()

    assert loop.guard.get_current_epsilon() == compose_epsilon([PoissonSampledGaussian(1.0, 0.05, 3)], 1e-5).epsilon


def test_epsilon_is_never_zero_because_nothing_was_attached(ledger: EphemeralLedger) -> None:
    guard = PrivacyGuard(CONFIG, ledger=ledger, lineage="clinic")

    with pytest.raises(UnsafeTrainingError, match="attach"):
        guard.get_current_epsilon()


def test_the_history_continues_over_rounds(make_scope: Make) -> None:
    earlier = (PoissonSampledGaussian(1.0, 0.05, 40), PoissonSampledGaussian(1.0, 0.05, 20))
    with enter(make_scope(prior_events=earlier)):
        loop = Loop(PrivacyGuard(CONFIG_IN_SESSION))
    loop.step()

    assert loop.guard.get_current_epsilon() == compose_epsilon([PoissonSampledGaussian(1.0, 0.05, 61)], 1e-5).epsilon


def test_a_second_attach_continues_the_count(loop: Loop) -> None:
    loop.step()
    loop.attach()
    loop.step()

    assert loop.guard.steps_taken == 2


def test_closing_commits_what_was_run_and_gives_the_rest_back(ledger: EphemeralLedger) -> None:
    with PrivacyGuard(CONFIG, ledger=ledger, lineage="clinic", total_steps=10) as guard:
        loop = Loop(guard)
        loop.step()
        reserved = ledger.lineage_claim("clinic").spent_pico

    claim = ledger.lineage_claim("clinic")
    assert (claim.open_reservations, claim.spent_pico * 10) == (0, reserved)


def test_a_guard_that_was_never_closed_stays_charged_in_full(ledger: EphemeralLedger) -> None:
    Loop(PrivacyGuard(CONFIG, ledger=ledger, lineage="clinic", total_steps=10)).step()

    assert ledger.lineage_claim("clinic").open_reservations == 1


def test_the_noise_is_calibrated_where_only_target_and_steps_are_given(ledger: EphemeralLedger) -> None:
    config = PrivacyConfig(mechanism="DP_SGD", target_epsilon=3.0, max_grad_norm=1.0)

    guard = PrivacyGuard(config, ledger=ledger, lineage="clinic", total_steps=68)

    assert guard.steps_affordable == 68
    assert 0.99 < guard.event().noise_multiplier <= 1.0  # type: ignore[union-attr]


# --- where a guard may be ----------------------------------------------------------------------------------------


CONFIG_IN_SESSION = PrivacyConfig(
    mechanism="DP_SGD",
    target_epsilon=100.0,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    delta=1e-5,
    unit=PrivacyUnit.RECORD,
)


def test_outside_a_session_a_guard_needs_a_ledger_and_a_lineage(ledger: EphemeralLedger) -> None:
    for arguments in ({}, {"ledger": ledger}, {"lineage": "clinic"}):
        with pytest.raises(ConfigurationError, match="outside a session, pass ledger="):
            PrivacyGuard(CONFIG, **arguments)


def test_inside_a_session_the_guard_takes_the_accepted_jobs_configuration_and_no_other(
    make_scope: Make, ledger: EphemeralLedger
) -> None:
    weaker = CONFIG_IN_SESSION.model_copy(update={"noise_multiplier": 0.1})
    with enter(make_scope()):
        assert PrivacyGuard(CONFIG_IN_SESSION).steps_affordable == 10
        with pytest.raises(UnsafeTrainingError, match="uses the job's privacy configuration"):
            PrivacyGuard(weaker)
        with pytest.raises(UnsafeTrainingError, match="uses the job's privacy configuration"):
            PrivacyGuard(CONFIG_IN_SESSION, ledger=ledger, lineage="clinic")


def test_scopes_do_not_nest(make_scope: Make) -> None:
    with enter(make_scope()), pytest.raises(RuntimeError, match="already open"), enter(make_scope()):
        pass


def test_a_lineage_that_protects_persons_is_not_trained_on_by_record(ledger: EphemeralLedger) -> None:
    persons = vars(ledger.registration("clinic")) | {"lineage": "persons", "unit": PrivacyUnit.PERSON}
    ledger.register(LineageRegistration(**persons))

    with pytest.raises(ConfigurationError, match="person ids come from a job"):
        PrivacyGuard(CONFIG, ledger=ledger, lineage="persons")


def test_an_injected_seed_is_recorded_and_has_32_bytes(ledger: EphemeralLedger) -> None:
    with pytest.raises(ConfigurationError, match="exactly 32 bytes"):
        PrivacyGuard(CONFIG, ledger=ledger, lineage="clinic", total_steps=1, unsafe_seed=b"short")
    assert ledger.lineage_claim("clinic").spent_pico == 0

    PrivacyGuard(CONFIG, ledger=ledger, lineage="clinic", total_steps=1, unsafe_seed=bytes(32))
    assert ledger.lineage_claim("clinic").noise_sources == (NoiseSource.UNSAFE_SEEDED,)


def test_a_seed_repeats_a_training_but_no_two_noise_levels_share_their_noise(ledger: EphemeralLedger) -> None:
    def trained(noise: float) -> torch.Tensor:
        config = CONFIG.model_copy(update={"noise_multiplier": noise, "target_epsilon": 5.0})
        guard = PrivacyGuard(config, ledger=ledger, lineage="clinic", total_steps=1, unsafe_seed=bytes(32))
        model = torch.nn.Linear(2, 1)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        loop = Loop(guard, model)
        features, _ = next(loop.batches)
        (loop.model(features) * 0).mean().backward()  # the step is noise and nothing else
        loop.optimizer.step()
        return loop.weights()

    assert torch.equal(trained(2.0), trained(2.0))
    assert not torch.allclose(trained(2.0), trained(4.0) / 2)


# --- models, optimizers and loops --------------------------------------------------------------------------------


def attach(make_scope: Make, model: torch.nn.Module, optimizer: Any = None, rows: Any = None, **scope: Any) -> Any:
    data = TensorDataset(torch.zeros(8, 2)) if rows is None else rows
    with enter(make_scope(**scope)):
        guard = PrivacyGuard(CONFIG_IN_SESSION.model_copy(update=scope and {"unit": PrivacyUnit.PERSON}))
    plain = torch.optim.SGD(model.parameters(), lr=1.0) if optimizer is None else optimizer
    return guard.attach(
        model=model, optimizer=plain, data_loader=DataLoader(data), criterion=lambda outputs, *_: outputs.mean()
    )


def test_batch_norm_is_refused_and_its_fix_is_named(make_scope: Make) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))

    with pytest.raises(UnsafeTrainingError, match=r"BatchNorm.*GroupNorm.*ModuleValidator\.fix"):
        attach(make_scope, model)


class RunningMean(torch.nn.Module):
    """Keeps a statistic of its inputs where no noise reaches it, and has nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.mean = rows.mean(dim=0)
        return rows


def test_a_buffer_is_refused_because_what_is_written_there_would_leave_without_noise(make_scope: Make) -> None:
    model = torch.nn.Sequential(RunningMean(), torch.nn.Linear(2, 1))

    with pytest.raises(UnsafeTrainingError, match=r"buffers \(0\.mean\), to which the guard adds no noise"):
        attach(make_scope, model)


def test_an_optimizer_of_other_parameters_is_refused(make_scope: Make) -> None:
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    partial = torch.optim.SGD([model.weight], lr=1.0)

    for optimizer in (partial, torch.optim.SGD(other.parameters(), lr=1.0)):
        with pytest.raises(UnsafeTrainingError, match="exactly the model's trainable parameters"):
            attach(make_scope, model, optimizer)


def test_an_optimizer_that_is_private_already_is_refused(make_scope: Make) -> None:
    model = torch.nn.Linear(2, 1)
    _, private, _ = attach(make_scope, model)

    with pytest.raises(UnsafeTrainingError, match="already private"):
        attach(make_scope, model, private)


def test_frozen_parameters_need_no_gradient(make_scope: Make) -> None:
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()

    private, optimizer, loader = attach(make_scope, model)
    private(next(iter(loader))[0]).mean().backward()
    optimizer.step()

    assert not torch.equal(model.weight, weight)
    assert torch.equal(model.bias, bias)


def test_person_ids_for_other_rows_are_refused(make_scope: Make) -> None:
    with pytest.raises(UnsafeTrainingError, match="each row needs one id"):
        attach(make_scope, torch.nn.Linear(2, 1), unit_of_row=torch.zeros(7).numpy())


def test_the_model_keeps_its_class_and_its_parameter_names(make_scope: Make) -> None:
    model = torch.nn.Linear(2, 1)
    private, _, _ = attach(make_scope, model)

    assert private is model
    assert list(private.state_dict()) == ["weight", "bias"]


def test_one_batch_does_not_serve_two_steps(loop: Loop) -> None:
    loop.step()

    with pytest.raises(UnsafeTrainingError, match="take one step per batch"):
        loop.optimizer.step()
    assert loop.guard.steps_taken == 1


def test_a_step_without_any_batch_is_refused(loop: Loop) -> None:
    with pytest.raises(UnsafeTrainingError, match="fresh batch of the private data loader"):
        loop.optimizer.step()


def test_gradients_accumulated_over_two_batches_are_refused(loop: Loop) -> None:
    loop.backward()

    with pytest.raises(UnsafeTrainingError, match="the previous batch got no step"):
        loop.backward()


def test_two_backward_passes_over_one_batch_are_refused(loop: Loop) -> None:
    features, targets = next(loop.batches)
    for _ in range(2):
        torch.nn.functional.mse_loss(loop.model(features), targets).backward()

    with pytest.raises(UnsafeTrainingError, match="gradients do not match the batch"):
        loop.optimizer.step()


def test_gradients_of_other_rows_than_those_drawn_are_refused(loop: Loop) -> None:
    next(loop.batches)
    loop.model(torch.ones(500, 2)).sum().backward()

    with pytest.raises(UnsafeTrainingError, match="gradients do not match the batch"):
        loop.optimizer.step()


def test_virtual_steps_are_refused(loop: Loop) -> None:
    with pytest.raises(UnsafeTrainingError, match="virtual batches are not supported"):
        loop.optimizer.signal_skip_step(do_skip=True)


def test_an_empty_sample_still_takes_a_noised_and_charged_step(make_scope: Make) -> None:
    with enter(make_scope(sample_rate=1e-9)):
        config = CONFIG_IN_SESSION.model_copy(update={"sample_rate": 1e-9})
        loop = Loop(PrivacyGuard(config))
    before = loop.weights()

    loop.step()

    assert loop.guard.steps_taken == 1
    assert torch.isfinite(loop.weights()).all()
    assert not torch.equal(loop.weights(), before)


def test_an_empty_sample_goes_through_convolutions(make_scope: Make) -> None:
    with enter(make_scope(sample_rate=1e-9)):
        guard = PrivacyGuard(CONFIG_IN_SESSION.model_copy(update={"sample_rate": 1e-9}))
    model = SmallCNN(in_channels=1, size=8, classes=3)
    data = TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long))
    model, optimizer, loader = guard.attach(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-9),
        data_loader=DataLoader(data),
        criterion=torch.nn.functional.cross_entropy,
    )
    features, labels = next(iter(loader))
    torch.nn.functional.cross_entropy(model(features), labels).backward()

    optimizer.step()

    assert guard.steps_taken == 1
