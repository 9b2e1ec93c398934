"""What FLARE knows of its clients, as signs of life."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from aegis.runtimes.nvflare.liveness import FlareLiveness


@dataclass
class Seen:
    clients: list[str] = field(default_factory=lambda: ["clinic-1", "clinic-2"])
    gone: set[str] = field(default_factory=set)
    now: float = 100.9

    def liveness(self) -> FlareLiveness:
        return FlareLiveness(
            lambda: self.clients, lambda name: 99.0 if name in self.gone else None, clock=lambda: self.now
        )


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_the_clients_of_the_job_are_connected_and_others_unknown(seen: Seen) -> None:
    health = seen.liveness().health()

    assert {site: each.connected for site, each in health.items()} == {"clinic-1": True, "clinic-2": True}


def test_a_client_that_came_back_has_joined_once_more(seen: Seen) -> None:
    liveness = seen.liveness()
    before = liveness.health()["clinic-1"]
    seen.gone, seen.now = {"clinic-1"}, 200.0
    away = liveness.health()["clinic-1"]
    seen.gone, seen.now = set(), 300.0
    back = liveness.health()["clinic-1"]

    assert (before.connected, away.connected, back.connected) == (True, False, True)
    assert before.activations == away.activations < back.activations
    assert liveness.health()["clinic-1"] == back


def test_a_later_job_of_the_same_run_counts_on_where_the_earlier_one_was(seen: Seen) -> None:
    earlier = seen.liveness().health()["clinic-1"].activations
    seen.now += 60

    assert seen.liveness().health()["clinic-1"].activations > earlier


def test_a_client_that_never_was_there_has_never_joined(seen: Seen) -> None:
    seen.gone = {"clinic-2"}

    assert seen.liveness().health()["clinic-2"].activations == 0
