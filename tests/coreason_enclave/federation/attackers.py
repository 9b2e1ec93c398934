"""Agents that try to let something out of a site which no charged, noised step has reached."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import optim
from torch.optim.optimizer import register_optimizer_step_post_hook

from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.models import build, load_weights, weights_of
from coreason_enclave.privacy import PrivacyGuard

BIG = 10.0


class Attacker(CoreasonExecutor):
    """Two private steps, and a place before, between and after them for whatever is tried."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        self.guard = PrivacyGuard(config=self._parse_job_config(shareable).privacy)
        self.original = self.make_optimizer()
        self.before_attach()
        self.model, self.private, self.loader = self.attach()
        self.before()
        for number, (data, target) in enumerate(self.loader):
            self.private.zero_grad()
            self.criterion(self.model(data), target).backward()
            self.before_step(number)
            self.private.step()
            self.after_step(number)
        self.after()
        return self.returned()

    def make_optimizer(self) -> Any:
        return optim.SGD(self.model.parameters(), lr=0.5, momentum=0.5)

    def attach(self) -> Any:
        return self.guard.attach(model=self.model, optimizer=self.original, data_loader=self.loader)

    def before_attach(self) -> None: ...

    def before(self) -> None: ...

    def before_step(self, number: int) -> None: ...

    def after_step(self, number: int) -> None: ...

    def after(self) -> None: ...

    def returned(self) -> Any:
        return self.sentry.sanitize_output({"params": self.model.state_dict(), "metrics": self.metrics()})

    def metrics(self) -> dict[str, float]:
        return {}

    def raw_gradient(self) -> dict[str, torch.Tensor]:
        """The gradient over all rows, of a copy that the guard does not know."""
        other = self.twin()
        data, target = self.all_rows()
        self.criterion(other(data), target).backward()
        return {name: parameter.grad.clone() for name, parameter in other.named_parameters()}

    def twin(self) -> torch.nn.Module:
        """A model with the weights of the attached one, without a guard."""
        job = self._working().task.job
        twin = build(job.model_arch, job.model_args).module
        load_weights(twin, weights_of(self.model))
        return twin

    def all_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        features, labels = self._working().task.dataset.features, self._working().task.dataset.labels
        return torch.tensor(features), torch.tensor(labels)

    def add_to_weights(self, gradients: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.sub_(gradients[name])


def trying(name: str, **acts: Callable[..., Any]) -> type[Attacker]:
    """An attacker that does this at the named places."""
    return type(name, (Attacker,), dict(acts))


class Stale(Attacker):
    """Steps the optimizer that it attached, along gradients without noise, and charges nothing."""

    def _execute_training(self, *given: Any) -> Any:
        data, target = self.all_rows()
        self.original = self.make_optimizer()
        self.guard = PrivacyGuard(config=self._parse_job_config(given[0]).privacy)
        self.attach()
        for _ in range(3):
            self.original.zero_grad()
            self.criterion(self.model(data), target).backward()
            self.original.step()
        return self.returned()


class SecondModel(Attacker):
    """Trains a model beside the attached one, with the same rows and no noise, and returns its weights."""

    def before(self) -> None:
        self.other = self.twin()
        self.theirs = optim.SGD(self.other.parameters(), lr=0.5)

    def before_step(self, number: int) -> None:
        data, target = self.all_rows()
        self.theirs.zero_grad()
        self.criterion(self.other(data), target).backward()
        self.theirs.step()

    def returned(self) -> Any:
        return self.sentry.sanitize_output({"params": self.other.state_dict(), "metrics": {}})


class CounterSetBack(Attacker):
    """Four steps are reserved, twelve run, four look as if they were charged."""

    def _execute_training(self, *given: Any) -> Any:
        self.guard = PrivacyGuard(config=self._parse_job_config(given[0]).privacy)
        self.original = self.make_optimizer()
        model, private, loader = self.attach()
        gate = self._working().task.scope.gate
        for _ in range(3):
            for _ in range(2):
                for data, target in loader:
                    private.zero_grad()
                    self.criterion(model(data), target).backward()
                    private.step()
            done, gate._steps_taken = gate._steps_taken, 0
        gate._steps_taken = done
        return self.returned()


class RaisesTheLimit(CounterSetBack):
    """Twelve steps run and twelve are counted, where four are reserved."""

    def _execute_training(self, *given: Any) -> Any:
        self._working().task.scope.gate._step_limit = 12
        self.guard = PrivacyGuard(config=self._parse_job_config(given[0]).privacy)
        self.original = self.make_optimizer()
        model, private, loader = self.attach()
        for _ in range(6):
            for data, target in loader:
                private.zero_grad()
                self.criterion(model(data), target).backward()
                private.step()
        return self.returned()


class FoldsARowIntoAWeight(Attacker):
    """Adds one unit in the last place, for one bit of one row."""

    def returned(self) -> Any:
        weights = weights_of(self.model)
        bias = weights["linear.bias"]
        base = self._working().task.base["linear.bias"]
        larger = np.maximum(np.abs(bias), np.abs(base))  # below that, the difference to the base would round it away
        weights["linear.bias"] = bias + np.spacing(larger)
        return self.sentry.sanitize_output({"params": weights, "metrics": {}})


class ChoosesAnEarlierIterate(Attacker):
    """Returns the weights after the first step, having looked at which of the two fits the rows better."""

    def after_step(self, number: int) -> None:
        if number == 0:
            self.first = weights_of(self.model)

    def returned(self) -> Any:
        return self.sentry.sanitize_output({"params": self.first, "metrics": {}})


class OfItsOwnKind(optim.SGD):
    """An optimizer that adds to each step what it was told."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(BIG)


class AttachesTwice(Attacker):
    def before(self) -> None:
        self.original = self.make_optimizer()
        self.model, self.private, self.loader = self.attach()


class TwoGuards(Attacker):
    def before(self) -> None:
        self.guard = PrivacyGuard(config=self._working().task.job.privacy)
        self.original = self.make_optimizer()
        self.model, self.private, self.loader = self.attach()


class ForgetsTheFirstAttach(Attacker):
    """Trains once, clears what the scope remembers of it, and trains again from the base."""

    def after(self) -> None:
        task = self._working().task
        task.scope.iterates.clear()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.tensor(task.base[name]))
        self.original = self.make_optimizer()
        self.guard.attach(model=self.model, optimizer=self.original, data_loader=self._fresh_loader())

    def _fresh_loader(self) -> Any:
        from torch.utils.data import DataLoader, TensorDataset

        return DataLoader(TensorDataset(*self.all_rows()), batch_size=1)


class GlobalHook(Attacker):
    """A hook on the step of every optimizer in the process, the guard's copy included."""

    def before(self) -> None:
        def fold(optimizer: Any, *_: Any) -> None:
            with torch.no_grad():
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.add_(BIG)

        self.handle = register_optimizer_step_post_hook(fold)

    def _execute_training(self, *given: Any) -> Any:
        try:
            return super()._execute_training(*given)
        finally:
            self.handle.remove()


class FreezesAndFolds(Attacker):
    """Takes a parameter out of training and writes a gradient into it."""

    at_the_end = True

    def make_optimizer(self) -> Any:
        self.model.linear.bias.requires_grad_(False)
        return optim.SGD([self.model.linear.weight], lr=0.5)

    def fold(self) -> None:
        with torch.no_grad():
            self.model.linear.bias.add_(BIG)

    def after(self) -> None:
        if self.at_the_end:
            self.fold()

    def before_step(self, number: int) -> None:
        if not self.at_the_end and number == 1:
            self.fold()


class FreezesAndFoldsBetween(FreezesAndFolds):
    at_the_end = False


class WarmedUp(Attacker):
    """Fills the momentum with a gradient without noise, puts the weights back, and attaches."""

    def before_attach(self) -> None:
        data, target = self.all_rows()
        before = copy.deepcopy(self.model.state_dict())
        self.criterion(self.model(data), target).backward()
        self.original.step()
        self.model.load_state_dict(before)


class SwallowsTheRefusal(Attacker):
    """Edits a weight between two steps, swallows what the guard says, and returns what it has."""

    def _execute_training(self, *given: Any) -> Any:
        with contextlib.suppress(Exception):
            super()._execute_training(*given)
        return self.returned()

    def before_step(self, number: int) -> None:
        if number == 1:
            self.add_to_weights(self.raw_gradient())


def _at(number: int, act: Callable[[Any], Any]) -> Callable[[Any, int], None]:
    def place(self: Any, step: int) -> None:
        if step == number:
            act(self)

    return place


def _set_rate(attacker: Attacker) -> None:
    attacker.private.param_groups[0]["lr"] = float(attacker.raw_gradient()["linear.bias"].abs())


def _momentum_of_rows(attacker: Attacker) -> None:
    raw = attacker.raw_gradient()
    for name, parameter in attacker.model.named_parameters():
        attacker.private.state[parameter]["momentum_buffer"] = raw[name]


def _write_gradients(attacker: Attacker) -> None:
    for parameter in attacker.model.parameters():
        parameter.grad = torch.full_like(parameter, BIG)


UNREACHABLE: dict[str, tuple[type[CoreasonExecutor], str]] = {
    "a gradient that the loop wrote": (trying("A", before_step=_at(1, _write_gradients)), "unsafe_training"),
    "a stale optimizer, and no charged step": (Stale, "no_privacy_event"),
    "a stale optimizer after the private steps": (
        trying(
            "A",
            after_step=_at(
                1,
                lambda self: (
                    self.criterion(self.model(self.all_rows()[0]), self.all_rows()[1]).backward()
                    or self.original.step()
                ),
            ),
        ),
        "leakage",
    ),
    "a stale optimizer between two private steps": (
        trying("A", after_step=_at(0, lambda self: self.original.step())),
        "unsafe_training",
    ),
    "a gradient without noise added to the weights at the end": (
        trying("A", after=lambda self: self.add_to_weights(self.raw_gradient())),
        "leakage",
    ),
    "a gradient without noise added to the weights between two steps": (
        trying("A", after_step=_at(0, lambda self: self.add_to_weights(self.raw_gradient()))),
        "unsafe_training",
    ),
    "the same, with the guard's refusal swallowed": (SwallowsTheRefusal, "leakage"),
    "p.data exchanged between two steps": (
        trying(
            "A",
            after_step=_at(
                0, lambda self: setattr(self.model.linear.weight, "data", self.raw_gradient()["linear.weight"])
            ),
        ),
        "unsafe_training",
    ),
    "p.data exchanged at the end": (
        trying("A", after=lambda self: setattr(self.model.linear.weight, "data", self.raw_gradient()["linear.weight"])),
        "leakage",
    ),
    "the weights of a second model": (SecondModel, "leakage"),
    "weights with one bit of a row in the last place": (FoldsARowIntoAWeight, "leakage"),
    "the better one of two iterates": (ChoosesAnEarlierIterate, "leakage"),
    "a counter of the gate that was set back": (CounterSetBack, "leakage"),
    "a limit of the gate that was raised": (RaisesTheLimit, "leakage"),
    "a second attach": (AttachesTwice, "unsafe_training"),
    "a second guard": (TwoGuards, "unsafe_training"),
    "a second attach, with the first one forgotten": (ForgetsTheFirstAttach, "leakage"),
    "a model that holds a gradient before it is attached": (
        trying("A", before_attach=lambda self: self.add_to_weights(self.raw_gradient())),
        "unsafe_training",
    ),
    "momentum that was filled before the attach": (WarmedUp, "unsafe_training"),
    "momentum that was filled after it": (trying("A", before_step=_at(1, _momentum_of_rows)), "unsafe_training"),
    "a learning rate that follows a gradient": (trying("A", before_step=_at(1, _set_rate)), "unsafe_training"),
    "noise that was switched off": (
        trying("A", before=lambda self: setattr(self.private, "noise_multiplier", 0.0)),
        "unsafe_training",
    ),
    "a wider clipping bound": (
        trying("A", before=lambda self: setattr(self.private, "max_grad_norm", 1e6)),
        "unsafe_training",
    ),
    "an add_noise of its own": (
        trying("A", before=lambda self: setattr(self.private, "add_noise", lambda: None)),
        "unsafe_training",
    ),
    "another optimizer behind the private one": (
        trying("A", before=lambda self: setattr(self.private, "original_optimizer", self.make_optimizer())),
        "unsafe_training",
    ),
    "a hook between noise and step": (
        trying("A", before=lambda self: self.private.attach_step_hook(lambda _: self.add_to_weights({}))),
        "unsafe_training",
    ),
    "such a hook, set by hand": (
        trying("A", before=lambda self: setattr(self.private, "step_hook", lambda _: None)),
        "unsafe_training",
    ),
    "a hook on every optimizer": (GlobalHook, "unsafe_training"),
    "an optimizer of its own": (
        trying("A", make_optimizer=lambda self: OfItsOwnKind(self.model.parameters(), lr=0.5)),
        "unsafe_training",
    ),
    "a frozen weight written at the end": (FreezesAndFolds, "leakage"),
    "a frozen weight written between two steps": (FreezesAndFoldsBetween, "unsafe_training"),
    "a closure": (
        trying("A", before_step=_at(0, lambda self: self.private.step(lambda: 0.0))),
        "unsafe_training",
    ),
    "an optimizer state that is loaded": (
        trying("A", before=lambda self: self.private.load_state_dict({})),
        "unsafe_training",
    ),
    "global weights that are written into": (
        trying("A", before_attach=lambda self: self._working().task.base["linear.bias"].fill(1.0)),
        "internal",
    ),
    "an epsilon that is a number of the rows'": (trying("A", metrics=lambda self: {"epsilon": 0.4242}), "leakage"),
    "a number of units that is one of the rows'": (
        trying("A", metrics=lambda self: {"nominal_units": 20.0}),
        "leakage",
    ),
    "a delta that is a number of the rows'": (trying("A", metrics=lambda self: {"delta": 1.5e-5}), "leakage"),
}
"""What is tried, by whom, and the reason that leaves the site in its place."""


HARMLESS: dict[str, type[CoreasonExecutor]] = {
    "reads the gradients without noise": trying("A", before_step=lambda self, _: self.raw_gradient()),
    "finds no gradient on a parameter before the step": trying(
        "A", before_step=lambda self, _: [p.grad.fill_(BIG) for p in self.model.parameters() if p.grad is not None]
    ),
    "hooks the step of the optimizer that it attached": trying(
        "A", before=lambda self: self.original.register_step_pre_hook(lambda *_: self.add_to_weights({}))
    ),
    "edits the weights, and puts them back before the step": trying(
        "A",
        before_step=lambda self, _: [
            (p.data.add_(1.0), p.data.copy_(kept))
            for p, kept in [(p, p.detach().clone()) for p in self.model.parameters()]
        ],
    ),
    "states the guard's own numbers": trying(
        "A",
        metrics=lambda self: {
            "epsilon": self.guard.get_current_epsilon(),
            "steps": self.guard.steps_taken,
            "delta": self.guard.delta,
        },
    ),
}
"""What a loop may do: the update is the one of a loop that does nothing of the kind."""
