"""Training loops as sites' own authors write them: one as the documentation shows it, and others that go wrong."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.shareable import Shareable, make_reply
from torch import optim

from coreason_enclave.errors import PrivacyBudgetExceededError
from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.models import weights_of
from coreason_enclave.privacy import PrivacyGuard

ROW = "patient p007, age 41.5"


# fmt: off
class SecureAgent(CoreasonExecutor):
    def _execute_training(self, shareable, fl_ctx, abort_signal):
        self._check_hardware_trust()
        job_config = self._parse_job_config(shareable)
        privacy_guard = PrivacyGuard(config=job_config.privacy)
        model, optimizer, loader = privacy_guard.attach(model=self.model, optimizer=optim.SGD(self.model.parameters(), lr=0.01), data_loader=self.loader)  # noqa: E501 - word for word
        for epoch in range(1):  # noqa: B007 - word for word
            for data, target in loader:
                if abort_signal.triggered: break  # noqa: E701
                optimizer.zero_grad(); loss = self.criterion(model(data), target); loss.backward(); optimizer.step()  # noqa: E702
                privacy_guard.check_budget()
        return self.sentry.sanitize_output({"params": model.state_dict(), "metrics": {"epsilon": privacy_guard.get_current_epsilon()}})  # noqa: E501
# fmt: on


class Loop(CoreasonExecutor):
    """The same, in parts: how long it trains, whether it asks, and what it returns."""

    epochs = 1
    learning_rate = 0.01
    checks = True
    looks = True

    def _execute_training(self, shareable: Shareable, fl_ctx: Any, abort_signal: Any) -> Any:
        self.seen = (shareable, fl_ctx, self.model, self.loader)
        guard = PrivacyGuard(config=self._parse_job_config(shareable).privacy)
        model, optimizer, loader = guard.attach(
            model=self.model,
            optimizer=optim.SGD(self.model.parameters(), lr=self.learning_rate),
            data_loader=self.loader,
        )
        for _ in range(self.epochs):
            for data, target in loader:
                if self.looks and abort_signal.triggered:
                    break
                optimizer.zero_grad()
                self.criterion(model(data), target).backward()
                optimizer.step()
                if self.checks:
                    guard.check_budget()
                if self.enough(guard):
                    return self.returned(model)
        return self.returned(model)

    def enough(self, guard: PrivacyGuard) -> bool:
        return False

    def returned(self, model: torch.nn.Module) -> Any:
        return self.sentry.sanitize_output({"params": model.state_dict(), "metrics": {}})


class ToTheLastAffordableStep(Loop):
    """Ends exactly at the cap."""

    epochs = 100

    def enough(self, guard: PrivacyGuard) -> bool:
        return guard.steps_taken == guard.steps_affordable


class FiveEpochs(Loop):
    epochs = 5


class FiveEpochsWithoutAsking(FiveEpochs):
    checks = False


class SwallowsTheRefusal(FiveEpochs):
    def _execute_training(self, *given: Any) -> Any:
        with contextlib.suppress(PrivacyBudgetExceededError):
            super()._execute_training(*given)
        return self.returned(self.model)


class NeverAttaches(Loop):
    """Plain gradient descent on the rows."""

    def _execute_training(self, *given: Any) -> Any:
        for data, target in self.loader:
            self.criterion(self.model(data), target).backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter -= 0.01 * parameter.grad
        return self.returned(self.model)


class LooksAtNothing(Loop):
    looks = False
    epochs = 2


class FailsWhenItIsStopped(CoreasonExecutor):
    """Says so in its own way."""

    def _execute_training(self, shareable: Shareable, fl_ctx: Any, abort_signal: Any) -> Any:
        while not abort_signal.triggered:
            pass
        raise RuntimeError("somebody stopped it")


class SwallowsTheAbort(Loop):
    """Stops when it is asked to, and returns what it has by then."""

    def _execute_training(self, *given: Any) -> Any:
        with contextlib.suppress(Exception):
            super()._execute_training(*given)
        return self.returned(self.model)


class RepliesAborted(Loop):
    """As FLARE's own examples do."""

    def _execute_training(self, shareable: Shareable, fl_ctx: Any, abort_signal: Any) -> Any:
        super()._execute_training(shareable, fl_ctx, abort_signal)
        return make_reply("TASK_ABORTED")


class RepliesWithAnError(Loop):
    def returned(self, model: torch.nn.Module) -> Any:
        return make_reply("EXECUTION_EXCEPTION")


class FailsWithARow(CoreasonExecutor):
    def _execute_training(self, *given: Any) -> Any:
        raise ValueError(f"cannot convert: {ROW}")


class ExitsTheProcess(CoreasonExecutor):
    def _execute_training(self, *given: Any) -> Any:
        raise SystemExit(3)


class AddsToTheStandardLoop(CoreasonExecutor):
    """Calls the loop that it replaces."""

    def _execute_training(self, shareable: Shareable, fl_ctx: Any, abort_signal: Any) -> Any:
        self._check_hardware_trust()
        return super()._execute_training(shareable, fl_ctx, abort_signal)


class StandardLoopInTheirOwnWords(Loop):
    """The job's own steps, learning rate and momentum."""

    def _execute_training(self, shareable: Shareable, fl_ctx: Any, abort_signal: Any) -> Any:
        job = self._parse_job_config(shareable)
        guard = PrivacyGuard(config=job.privacy)
        optimizer = optim.SGD(self.model.parameters(), lr=job.learning_rate, momentum=job.momentum)
        model, private, loader = guard.attach(model=self.model, optimizer=optimizer, data_loader=self.loader)
        done = 0
        while done < job.local_steps:
            for data, target in loader:
                private.zero_grad()
                self.criterion(model(data), target).backward()
                private.step()
                done += 1
                if done == job.local_steps:
                    break
        return self.returned(model)


class Returns(Loop):
    """Trains, and returns something else."""

    def returned(self, model: torch.nn.Module) -> Any:
        return self.output(weights_of(model))

    def output(self, weights: dict[str, Any]) -> Any:
        raise NotImplementedError


class WeightsInADxo(Returns):
    def output(self, weights: dict[str, Any]) -> Any:
        return DXO(DataKind.WEIGHTS, data=weights)


class WeightsInAShareable(Returns):
    def output(self, weights: dict[str, Any]) -> Any:
        return DXO(DataKind.WEIGHTS, data=weights, meta={"metrics": {"steps": 2}}).to_shareable()


class DifferenceInADxo(Returns):
    def output(self, weights: dict[str, Any]) -> Any:
        assert self._work is not None
        base = self._work.task.base
        return DXO(DataKind.WEIGHT_DIFF, data={name: weights[name] - base[name] for name in weights})


def returning(name: str, output: Any) -> type[Returns]:
    return type(name, (Returns,), {"output": lambda _self, weights: output(weights)})


def _dxo(data: Any, kind: str = DataKind.WEIGHTS, **meta: Any) -> DXO:
    return DXO(kind, data=data, meta=meta)


def _shareable_with_more(weights: dict[str, Any]) -> Shareable:
    shareable = _dxo(weights).to_shareable()
    shareable["rows"] = [1.0, 2.0]
    return shareable


UNRELEASABLE: dict[str, tuple[type[CoreasonExecutor], str]] = {
    "lists of floats": (returning("R", lambda w: {"params": {n: a.tolist() for n, a in w.items()}}), "leakage"),
    "lists of floats in a DXO": (returning("R", lambda w: _dxo({n: a.tolist() for n, a in w.items()})), "leakage"),
    "tensors in a DXO": (returning("R", lambda w: _dxo({n: torch.tensor(a) for n, a in w.items()})), "leakage"),
    "weights without a wrapper": (returning("R", lambda w: w), "leakage"),
    "one key more": (returning("R", lambda w: {"params": w, "metrics": {}, "rows": ROW}), "leakage"),
    "its loss": (returning("R", lambda w: {"params": w, "metrics": {"loss": 0.3}}), "leakage"),
    "its loss in a DXO": (returning("R", lambda w: _dxo(w, metrics={"loss": 0.3})), "leakage"),
    "how many rows it has, as FLARE asks": (returning("R", lambda w: _dxo(w, NUM_STEPS_CURRENT_ROUND=57)), "leakage"),
    "another number of steps": (returning("R", lambda w: {"params": w, "metrics": {"steps": 3}}), "leakage"),
    "float64": (returning("R", lambda w: {"params": {n: a.astype(np.float64) for n, a in w.items()}}), "leakage"),
    "a DXO of another kind": (returning("R", lambda w: _dxo({"loss": 0.3}, DataKind.METRICS)), "leakage"),
    "a Shareable with more in it": (returning("R", _shareable_with_more), "leakage"),
    "a Shareable without a DXO": (returning("R", lambda w: Shareable({"params": w})), "leakage"),
    "nothing": (returning("R", lambda w: None), "leakage"),
    "a parameter more": (returning("R", lambda w: {"params": {**w, "x": np.ones(3, np.float32)}}), "wrong_shapes"),
    "a parameter less": (returning("R", lambda w: {"params": {"linear.bias": w["linear.bias"]}}), "wrong_shapes"),
    "another shape": (returning("R", lambda w: _dxo({n: a[..., None] for n, a in w.items()})), "wrong_shapes"),
    "NaN": (returning("R", lambda w: {"params": {n: a * np.float32("nan") for n, a in w.items()}}), "non_finite"),
    "far more than agreed": (
        returning("R", lambda w: {"params": {n: a + np.float32(1e6) for n, a in w.items()}}),
        "norm_exceeded",
    ),
    "more than float32 holds": (
        returning("R", lambda w: _dxo({n: np.full_like(a, 3e38) for n, a in w.items()})),
        "norm_exceeded",
    ),
}
