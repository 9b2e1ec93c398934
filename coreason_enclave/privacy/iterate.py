"""The private iterate: the weights that charged, noised steps reach from the base model, kept apart from the loop's.

A training loop may read un-noised gradients, hold a second model, or step an optimizer of its own, and none of these
results may leave. The guard therefore keeps its own copy of the weights and of the optimizer, both made at ``attach``:

- The copy of the optimizer sees noised gradients only, and its state begins empty.
- The loop works on copies of the iterate, rewritten after each step.
- Before each step, the loop's weights must equal the iterate bit for bit, and the optimizer must be unchanged since
  ``attach``.
- A session releases the iterate minus the base model, and refuses any other output of a loop.

Code in the same Python process can reach any object in the process. ADR 0020 describes the consequences, and why a site
reviews the code it installs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_module

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.optimizer import PrivateOptimizer
from coreason_enclave.privacy.schedules import Hyperparameters, Schedule, hyperparameters_of, planned
from coreason_enclave.wire import Array, Arrays

Names = Mapping[torch.nn.Parameter, str]

OPTIMIZERS: frozenset[type[Optimizer]] = frozenset(
    {
        torch.optim.SGD,
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.Adamax,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.RMSprop,
        torch.optim.Rprop,
        torch.optim.Adagrad,
        torch.optim.Adadelta,
        torch.optim.ASGD,
    }
)
"""Optimizers whose step follows from gradients, their own state and fixed hyperparameters. A subclass may do more."""

_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class PrivateIterate:
    """The guard's own weights and optimizer, with a step count independent of the gate's.

    Args:
        model: the loop's model; its weights form the first iterate.
        optimizer: the caller's, of one of :data:`OPTIMIZERS`.
        names: the trainable parameters.
        base: inside a session, the global weights, which the model must hold bit for bit; None outside.
        schedule, step_limit: see :func:`~coreason_enclave.privacy.schedules.planned`.

    Raises:
        UnsafeTrainingError: the model differs from the base, or the optimizer has another class or has stepped before.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: Optimizer,
        names: Names,
        *,
        base: Arrays | None,
        schedule: Schedule | None = None,
        step_limit: int = 0,
    ) -> None:
        if type(optimizer) not in OPTIMIZERS:
            raise UnsafeTrainingError(
                f"unsupported optimizer: use torch's own {', '.join(sorted(kind.__name__ for kind in OPTIMIZERS))}"
            )
        if base is not None:
            _require_base(model, base)
        self.steps = 0
        self._base, self._names, self._visible_optimizer = base, dict(names), optimizer
        self._pairs = [(parameter, _copied(parameter)) for parameter in names]
        # Under every name, as a tied parameter has two.
        self._held = {name: id(value) for name, value in model.state_dict(keep_vars=True).items()}
        self._frozen = [(p, p.detach().clone()) for p in model.parameters() if p not in names]
        self._attached = hyperparameters_of(optimizer)
        self._optimizer = self._fresh(self._attached)
        self._plan = planned(self._optimizer, schedule, step_limit)
        self._first_state = _states(self._optimizer, [shadow for _, shadow in self._pairs])
        if base is not None and not self._is_unstepped():
            raise UnsafeTrainingError("the optimizer has stepped before, perhaps without noise: attach a new optimizer")
        if base is None and not self._is_unstepped():  # an experiment that continues an earlier experiment
            self._first_state = _states(optimizer, [parameter for parameter, _ in self._pairs])
            for (_, shadow), state in zip(self._pairs, self._first_state, strict=True):
                self._optimizer.state[shadow] = _deep_copied(state)

    def require_untouched(self) -> None:
        """Raise :class:`UnsafeTrainingError` if the loop changed its weights or optimizer since the last step.

        Hooks registered on every optimizer's step also raise.
        """
        moved = [self._names[parameter] for parameter, shadow in self._pairs if not _same_bits(parameter, shadow)]
        if moved or not all(_same_bits(parameter, before) for parameter, before in self._frozen):
            raise UnsafeTrainingError(
                f"{', '.join(moved[:3]) or 'frozen weights'} changed without a private step: step the optimizer that "
                "attach returned, and do not write to parameters between two steps"
            )
        if hyperparameters_of(self._visible_optimizer) != self._attached:
            raise UnsafeTrainingError(
                "hyperparameters changed after attach and could reveal rows: pass schedules to attach(schedule=…)"
            )
        if not self._is_unstepped():
            raise UnsafeTrainingError("the attached optimizer's state changed: step only the one that attach returned")
        if optimizer_module._global_optimizer_pre_hooks or optimizer_module._global_optimizer_post_hooks:
            raise UnsafeTrainingError("global optimizer step hooks are registered: remove the hooks before training")

    def advance(self) -> None:
        """Take one step along the noised gradients of the loop's parameters, and copy the result to its weights."""
        for group, values in zip(self._optimizer.param_groups, self._plan(self.steps), strict=True):
            group.update(values)
        for parameter, shadow in self._pairs:
            shadow.grad = None if parameter.grad is None else parameter.grad.clone()
        type(self._optimizer).step(self._optimizer)
        self.steps += 1
        with torch.no_grad():
            for parameter, shadow in self._pairs:
                shadow.grad = None
                parameter.copy_(shadow)

    def difference(self) -> dict[str, Array]:
        """Return the iterate minus the base model, float32, by the base model's names; inside a session only."""
        if self._base is None:
            raise UnsafeTrainingError("a base model is available only within a session")
        reached = {id(p): np.array(shadow.detach().numpy(), np.float32) for p, shadow in self._pairs}
        with np.errstate(over="ignore", invalid="ignore"):
            return {name: reached.get(self._held[name], value) - value for name, value in self._base.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the optimizer's state, which follows from noised gradients alone."""
        state: dict[str, Any] = _deep_copied(self._optimizer.state_dict())
        return state

    def _is_unstepped(self) -> bool:
        states = _states(self._visible_optimizer, [parameter for parameter, _ in self._pairs])
        return len(self._visible_optimizer.state) <= len(self._first_state) and _same_values(states, self._first_state)

    def _fresh(self, groups: Hyperparameters) -> Optimizer:
        """Return an optimizer of the caller's class over the guard's own weights, without state and without hooks."""
        copies = {id(parameter): shadow for parameter, shadow in self._pairs}
        held = [[copies[id(p)] for p in group["params"] if id(p) in copies] for group in self._groups()]
        return type(self._visible_optimizer)(
            [{**values, "params": params} for values, params in zip(groups, held, strict=True)]
        )  # type: ignore[call-arg]

    def _groups(self) -> list[dict[str, Any]]:
        return self._visible_optimizer.param_groups


class IteratedOptimizer(PrivateOptimizer):
    """The private optimizer in the loop's hands: each step moves the guard's iterate, then the loop's weights.

    Clipping bound, noise, keystream and gate are fixed: each step first checks that no attribute has changed.
    """

    def __init__(self, optimizer: Optimizer, *, iterate: PrivateIterate, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        self._iterate = iterate
        self._sealed: dict[str, Any] = {}
        self._seal()

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Charge, compute and take one noised step.

        Raises:
            UnsafeTrainingError: weights, optimizer or this object changed since the last step, or the caller passed a
                closure.
            PrivacyBudgetExceededError: the step is not affordable; nothing has run.
        """
        if closure is not None:
            raise UnsafeTrainingError("a closure would run outside the private step: call backward, then step()")
        changed = sorted(n for n in {**self._sealed, **self._own()} if self._own().get(n) is not self._sealed.get(n))
        if changed:
            raise UnsafeTrainingError(
                f"the optimizer's {', '.join(changed)} changed after attach: pass schedules to attach(schedule=…)"
            )
        self._iterate.require_untouched()
        if self.pre_step():  # False for a rehearsal's step, which moves nothing
            self._iterate.advance()
        self._seal()

    def attach_step_hook(self, fn: Callable[[Any], None]) -> None:
        """Raise always: a hook would run between the noise and the step."""
        raise UnsafeTrainingError("step hooks are not supported: put their code into the loop, after the step")

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`PrivateIterate.state_dict`."""
        return self._iterate.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        """Raise always: the state follows from the private steps."""
        raise UnsafeTrainingError("the state of a private optimizer cannot be loaded: it comes from its own steps")

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_sealed"}

    def _seal(self) -> None:
        self._sealed = self._own()


def _require_base(model: torch.nn.Module, base: Arrays) -> None:
    """Raise unless the model holds exactly the global weights: names, shapes and every bit."""
    weights = model.state_dict()
    if weights.keys() != base.keys():
        unmatched = sorted(weights.keys() ^ base.keys())
        raise UnsafeTrainingError(f"the weight names differ from the global model's ({', '.join(unmatched[:3])})")
    wrong = [name for name, value in weights.items() if not _same_bits(value, torch.tensor(base[name]))]
    if wrong:
        raise UnsafeTrainingError(f"{', '.join(wrong[:3])} differ from the task's weights: attach the model with those")


def _copied(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach().clone())


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return True if two tensors hold the same bytes: NaN equals itself, and zero differs from minus zero."""
    if (left.dtype, left.shape) != (right.dtype, right.shape) or left.element_size() not in _WORDS:
        return False
    word = _WORDS[left.element_size()]
    return torch.equal(left.detach().contiguous().view(word), right.detach().contiguous().view(word))


def _states(optimizer: Optimizer, parameters: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Return a copy of the optimizer's state for each parameter; an empty dict for a parameter without state."""
    return [_deep_copied(dict(optimizer.state[p])) if p in optimizer.state else {} for p in parameters]


def _deep_copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep_copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_deep_copied(each) for each in value]
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _same_values(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(_is_same(mine[key], theirs[key]) for key in mine)
        for mine, theirs in zip(left, right, strict=True)
    )


def _is_same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return _same_bits(left, right)
    return bool(left == right) if type(left) is type(right) else False
