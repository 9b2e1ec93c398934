"""The sites of this suite: two that take part, and one for each way of saying no.

What the last ones install as their ``trainer`` is hostile code at the data holder's own site: the airlock is there for
that, too.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import Any

import torch

from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.privacy import PrivacyGuard

WILLING = ("clinic-1", "clinic-2")

QUICK_EPSILON = 2.6
"""Affords the quick job's four steps (2.52 by PLD); not under a lineage's Rényi filter with the same cap (2.81)."""

QUICK: dict[str, dict[str, Any]] = {
    "clinic-1": {},
    "clinic-2": {},
    "clinic-3": {"policy": {"strategies": ["SCAFFOLD"]}},
    "clinic-4": {"lineage": {"epsilon": QUICK_EPSILON, "job_epsilon": QUICK_EPSILON}},
    "clinic-5": {"trainer": f"{__name__}:ReturnsRows"},
}
"""Three refusals that come about in three places: the policy, the ledger and the airlock."""

QUICK_REFUSALS = {"clinic-3": "policy", "clinic-4": "budget_exceeded", "clinic-5": "wrong_shapes"}

OTHERS: dict[str, dict[str, Any]] = {
    "clinic-1": {},
    "clinic-2": {},
    "clinic-3": {"lineage": {"dataset_id": "clinic/elsewhere"}},
    "clinic-4": {"policy": {"min_units": 22}},  # 24 are declared, the rows are of 20 persons
    "clinic-5": {"policy": {"participants": {}}},
    "clinic-6": {"trainer": f"{__name__}:TakesNoStep"},
    "clinic-7": {"trainer": f"{__name__}:GoesOnForEver"},
    "clinic-8": {"trainer": f"{__name__}:AttachesAgain"},
}

OTHER_REFUSALS = {
    "clinic-3": "lineage_unknown",
    "clinic-4": "dataset_schema",
    "clinic-5": "roll_call",
    "clinic-6": "no_privacy_event",
    "clinic-7": "budget_exceeded",
    "clinic-8": "unsafe_training",
}

SMUGGLED = "a-row-of-a-patient"
"""The name that :class:`ReturnsRows` gives to what it takes along: words of a loop, which no log may hold."""


class ReturnsRows(CoreasonExecutor):
    """Trains as it should, and puts a row of the data beside the weights, under a name of its own making."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        model = _train(self, shareable)
        rows = next(iter(self.loader))[0]
        return {"params": {**model.state_dict(), SMUGGLED: rows}, "metrics": {}}


class TakesNoStep(CoreasonExecutor):
    """Returns what it was given, so that there is nothing to account for."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        return self.sentry.sanitize_output({"params": self.model.state_dict()})


class GoesOnForEver(CoreasonExecutor):
    """Takes more steps than are reserved, never asks for the budget, and swallows the refusal."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        model = self.model
        with suppress(Exception):
            _train(self, shareable, for_ever=True)
        return self.sentry.sanitize_output({"params": model.state_dict()})


class AttachesAgain(CoreasonExecutor):
    """Trains as it should, and once more from where that led."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        _train(self, shareable)
        return self.sentry.sanitize_output({"params": _train(self, shareable).state_dict()})


def _train(agent: Any, shareable: Any, *, for_ever: bool = False) -> torch.nn.Module:
    """One pass over the private loader's batches, by the book; or pass upon pass."""
    job = agent._parse_job_config(shareable)
    guard = PrivacyGuard(config=job.privacy)
    optimizer = torch.optim.SGD(agent.model.parameters(), lr=job.learning_rate)
    model, private, loader = guard.attach(model=agent.model, optimizer=optimizer, data_loader=agent.loader)
    for _ in count() if for_ever else range(1):
        for features, labels in loader:
            private.zero_grad()
            agent.criterion(model(features), labels).backward()
            private.step()
    guard.detach()
    return model
