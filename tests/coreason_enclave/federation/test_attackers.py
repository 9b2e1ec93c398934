"""What is released is what charged, noised steps reached from the base model, whatever the agent tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import optim

from coreason_enclave.crypto.job_keys import unsafe_seeded_keys
from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.federation.nvflare.trainer import ExecutorTrainer
from coreason_enclave.sentry import DataSentry
from coreason_enclave.wire.updates import decode_arrays
from tests.coreason_enclave.federation.attackers import HARMLESS, UNREACHABLE, Attacker, trying
from tests.coreason_enclave.federation.conftest import SEED, Flare

Run = Callable[..., Flare]


def kept(site: Any) -> list[Any]:
    return list((site.folder / "released").rglob("*.update"))


@pytest.mark.parametrize("what", UNREACHABLE)
def test_nothing_leaves_by_way_of(what: str, flare: Flare) -> None:
    kind, reason = UNREACHABLE[what]
    flare.executor = kind()

    assert flare.refused("train", flare.order(base=flare.federation.weights(0.25)))[1] == reason
    types = [entry["type"] for entry in flare.site.ledger_entries()]
    # Seen in the rehearsal, which costs nothing; else charged in full, and never committed.
    assert types in (["founded", "registered"], ["founded", "registered", "reserved", "content_noted"])
    assert kept(flare.site) == []


def answered(federation: Any, kind: type[CoreasonExecutor], folder: Any, **job: Any) -> dict[str, Any]:
    """The update of one order, in the open."""
    site = type(federation)(folder, federation.signer, federation.now).create()
    trainer = ExecutorTrainer(kind(), "clinic-1", DataSentry(site.folder / "data"))
    from coreason_enclave.site.opening import open_site
    from tests.support.in_the_open import in_the_open

    keys = unsafe_seeded_keys(SEED, "clinic-1")
    opened = in_the_open(open_site(site.folder, trainer=trainer, job_keys=keys, clock=federation.clock))
    try:
        order = federation.order(federation.job(**job), federation.weights(0.25))
        return decode_arrays(opened.session.run(order).arrays, limit=1 << 20)
    finally:
        opened.close()


@pytest.mark.parametrize("what", HARMLESS)
def test_the_update_is_the_same_where_a_loop(what: str, federation: Any, tmp_path: Any) -> None:
    plain = answered(federation, Attacker, tmp_path / "plain")
    tried = answered(federation, HARMLESS[what], tmp_path / "tried")
    assert {name: array.tobytes() for name, array in tried.items()} == {n: a.tobytes() for n, a in plain.items()}


# --- what honest loops do -------------------------------------------------------------------------------------


class Recorded(Attacker):
    """Notes the noised gradient of each step, which is all that an optimizer may see."""

    seen: ClassVar[list[dict[str, torch.Tensor]]] = []

    def after_step(self, number: int) -> None:
        type(self).seen.append({name: p.grad.clone() for name, p in self.model.named_parameters()})


def by_groups(parameters: list[Any]) -> Any:
    return optim.SGD([{"params": parameters[:1], "lr": 0.5}, {"params": parameters[1:], "lr": 0.125}], lr=0.1)


HONEST: dict[str, tuple[Callable[[list[Any]], Any], dict[str, Any]]] = {
    "gradient descent": (lambda ps: optim.SGD(ps, lr=0.5), {}),
    "momentum": (lambda ps: optim.SGD(ps, lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.01), {}),
    "a rate for each group": (by_groups, {}),
    "Adam": (lambda ps: optim.Adam(ps, lr=0.05), {}),
    "AdamW": (lambda ps: optim.AdamW(ps, lr=0.05), {}),
    "Adagrad": (lambda ps: optim.Adagrad(ps, lr=0.05), {}),
    "RMSprop": (lambda ps: optim.RMSprop(ps, lr=0.05, momentum=0.5), {}),
    "Adam under FedProx": (lambda ps: optim.Adam(ps, lr=0.05), {"strategy": "FED_PROX", "proximal_mu": 2.0}),
}


@pytest.mark.parametrize("which", HONEST)
def test_the_update_is_what_torchs_own_optimizer_makes_of_the_noised_gradients(
    which: str, federation: Any, tmp_path: Any
) -> None:
    make, job = HONEST[which]
    loop = type("Honest", (Recorded,), {"seen": [], "make_optimizer": lambda self: make(list(self.model.parameters()))})
    update = answered(federation, loop, tmp_path / "site", **job)
    base = federation.weights(0.25)
    weights = {name: torch.nn.Parameter(torch.tensor(base[name])) for name in ("linear.weight", "linear.bias")}
    optimizer = make(list(weights.values()))
    for gradients in loop.seen:
        for name, parameter in weights.items():
            parameter.grad = gradients[name]
        optimizer.step()
    assert len(loop.seen) == 2
    for name, parameter in weights.items():
        np.testing.assert_array_equal(update[name], parameter.detach().numpy() - base[name])


def scheduled(factor: float) -> Any:
    def attach(self: Any) -> Any:
        def schedule(optimizer: Any) -> Any:
            return optim.lr_scheduler.ExponentialLR(optimizer, gamma=factor)

        return self.guard.attach(model=self.model, optimizer=self.original, data_loader=self.loader, schedule=schedule)

    return attach


def test_a_schedule_that_is_passed_to_attach_sets_the_rate_of_each_step(federation: Any, tmp_path: Any) -> None:
    plain = {"make_optimizer": lambda self: optim.SGD(self.model.parameters(), lr=0.5)}
    loop = type("Scheduled", (Recorded,), {**plain, "seen": [], "attach": scheduled(0.25)})
    update = answered(federation, loop, tmp_path / "site")
    base = federation.weights(0.25)["linear.weight"]
    expected = torch.tensor(base)
    for rate, gradients in zip((0.5, 0.125), loop.seen, strict=True):
        expected = torch.add(expected, gradients["linear.weight"], alpha=-rate)
    np.testing.assert_array_equal(update["linear.weight"], expected.numpy() - base)


class Follows(Attacker):
    """A scheduler of torch's on the private optimizer, which would follow whatever it is told."""

    def before(self) -> None:
        self.scheduler = optim.lr_scheduler.StepLR(self.private, step_size=1)


def on_plateau(self: Any) -> Any:
    plateau = optim.lr_scheduler.ReduceLROnPlateau
    return self.guard.attach(
        model=self.model, optimizer=self.original, data_loader=self.loader, schedule=lambda o: plateau(o)
    )


@pytest.mark.parametrize("kind", [Follows, trying("Plateau", attach=on_plateau)])
def test_a_schedule_that_could_follow_the_rows_is_refused(kind: type[CoreasonExecutor], flare: Flare) -> None:
    flare.executor = kind()

    assert flare.refused("train", flare.order())[1] == "unsafe_training"


def test_without_privacy_on_public_rows_a_loop_may_do_as_it_likes(flare: Flare) -> None:
    kind = trying("A", after=lambda self: self.add_to_weights(self.raw_gradient()))
    flare.executor = kind()
    privacy = {"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None}

    said = flare.statement(flare.ask("train", flare.order(flare.federation.job(privacy=privacy))))
    assert said.event == {"type": "non_private"}
