"""The executor as a thin carrier to the site's agent: a real socket, and what an agent does whose client has gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.signal import Signal

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.order_queue import Answering, Stoppable
from coreason_enclave.agent.unix_socket import serving_socket
from coreason_enclave.crypto.job_keys import unsafe_seeded_keys
from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.federation.nvflare.messages import sealed_reply
from coreason_enclave.privacy.training import LocalSgdTrainer, TrainingTask
from coreason_enclave.site.opening import open_site
from coreason_enclave.wire.updates import TrainedUpdate
from tests.coreason_enclave.federation import loops
from tests.coreason_enclave.federation.conftest import SEED, Flare
from tests.coreason_enclave.federation.test_tasks import types
from tests.support.gatekeeping import wait_until


class Quiet:
    """A log's stream."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


@contextmanager
def agent(site: Any, **options: Any) -> Iterator[Answering]:
    """What the agent's process composes, in threads of this one."""
    opened = open_site(site.folder, job_keys=unsafe_seeded_keys(SEED, "clinic-1"), **options)
    answering = Answering(Stoppable(opened.session, threading.Event()), AgentLog({}, stream=Quiet()))  # type: ignore[arg-type]
    try:
        with serving_socket(site.folder, answering, dict):
            yield answering
    finally:
        wait_until(lambda: not answering.busy, what="nothing is answered any more")
        opened.close()


@pytest.fixture
def carrier(flare: Flare) -> Flare:
    """FLARE around an executor that hands everything to the agent."""
    return flare.configured(runs="agent", unsafe_seed=None)


def test_every_task_is_answered_by_the_agent(carrier: Flare, standard: Callable[..., str]) -> None:
    job = carrier.federation.job()
    with agent(carrier.site) as answering:
        carrier.ask("enrol", carrier.federation.invitation(job))
        order = carrier.order(job)
        said = carrier.statement(carrier.ask("train", order))
        assert carrier.statement(carrier.ask("submit_model", order)).update_digest == said.update_digest
        assert carrier.execute("validate", sealed_reply(order)).get_return_code() == "OK"
    for kept in (carrier.site.folder / "released").glob("*/*.update"):
        kept.unlink()

    assert answering.answered == 5
    assert said.update_digest == standard(carrier.site, job)


def test_the_agents_reason_comes_through(carrier: Flare) -> None:
    with agent(carrier.site):
        assert carrier.refused("submit_model", carrier.order()) == ("BAD_TASK_DATA", "wrong_round")


def test_where_no_agent_runs_nobody_answered_and_the_site_can_be_asked_again(carrier: Flare) -> None:
    assert carrier.refused("train", carrier.federation.order(carrier.federation.job())) == (
        "COMMUNICATION_ERROR",
        "transport",
    )


def test_an_agent_that_was_started_again_is_found_again(carrier: Flare) -> None:
    with agent(carrier.site):
        order = carrier.order()
        first = carrier.statement(carrier.ask("train", order))
    with agent(carrier.site):
        assert carrier.refused("train", order) == ("BAD_TASK_DATA", "attestation_required")
        again = carrier.statement(carrier.ask("train", carrier.order()))

    assert first.update_digest == again.update_digest
    assert types(carrier.site).count("reserved") == 1


def test_a_loop_in_the_job_is_refused_where_the_agent_trains(carrier: Flare) -> None:
    carrier.executor = loops.SecureAgent()
    with agent(carrier.site):
        assert carrier.refused("attest", carrier.federation.order(carrier.federation.job())) == (
            "SERVICE_UNAVAILABLE",
            "configuration",
        )


class Holds:
    """The standard loop, which waits at its second step until it is let."""

    def __init__(self) -> None:
        self.inside, self.let, self.steps = threading.Event(), threading.Event(), 0

    def train(self, task: TrainingTask) -> TrainedUpdate:
        asked = task.aborted

        def aborted() -> bool:
            if not task.scope.rehearsal.complete:
                return asked()
            self.steps += 1
            if self.steps == 2:
                self.inside.set()
                assert self.let.wait(20)
                wait_until(asked, what="the agent hears that its client has gone")
            return asked()

        task.__dict__["aborted"] = aborted
        return LocalSgdTrainer().train(task)


def test_an_abort_ends_the_agents_training_between_two_steps_and_is_paid_once(carrier: Flare) -> None:
    signal, trainer = Signal(), Holds()
    refused: list[tuple[str, str]] = []
    with agent(carrier.site, trainer=trainer) as answering:
        order = carrier.order()
        asking = threading.Thread(target=lambda: refused.append(carrier.refused("train", order, signal)))
        asking.start()
        assert trainer.inside.wait(20)
        signal.trigger("stop")
        asking.join(20)
        assert refused == [("TASK_ABORTED", "aborted")]
        trainer.let.set()
        wait_until(lambda: answering.refused == 1, what="the agent gave up")
        assert trainer.steps == 2
        assert types(carrier.site)[-1] == "content_noted"
        assert carrier.site.log()[-1]["reason"] == "aborted"

        said = carrier.statement(carrier.ask("train", order))
    assert said.update_digest == carrier.site.ledger_entries()[-1]["update_digest"]
    assert types(carrier.site).count("reserved") == 1


def test_an_executor_in_agent_mode_opens_nothing_of_the_site(carrier: Flare, tmp_path: Path) -> None:
    carrier.executor = CoreasonExecutor()
    carrier.refused("attest", carrier.federation.order(carrier.federation.job()))

    assert not (carrier.site.folder / "audit.jsonl").exists()
