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
from coreason_enclave.agent.order_queue import SerialHandler, StoppableHandler
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
def agent(site: Any, **options: Any) -> Iterator[SerialHandler]:
    """What the agent's process composes, in threads of this one."""
    opened = open_site(site.folder, job_keys=unsafe_seeded_keys(SEED, "clinic-1"), **options)
    answering = SerialHandler(StoppableHandler(opened.session, threading.Event()), AgentLog({}, stream=Quiet()))  # type: ignore[arg-type]
    try:
        with serving_socket(site.folder, answering, dict):
            yield answering
    finally:
        wait_until(lambda: not answering.busy, what="nothing is answered any more")
        opened.close()


@pytest.fixture
def transport(flare: Flare) -> Flare:
    """FLARE around an executor that hands everything to the agent."""
    return flare.configured(runs="agent", unsafe_seed=None)


def test_every_task_is_answered_by_the_agent(transport: Flare, standard: Callable[..., str]) -> None:
    job = transport.federation.job()
    with agent(transport.site) as answering:
        transport.ask("enrol", transport.federation.invitation(job))
        order = transport.order(job)
        said = transport.statement(transport.ask("train", order))
        assert transport.statement(transport.ask("submit_model", order)).update_digest == said.update_digest
        assert transport.execute("validate", sealed_reply(order)).get_return_code() == "OK"
    for kept in (transport.site.folder / "released").glob("*/*.update"):
        kept.unlink()

    assert answering.answered == 5
    assert said.update_digest == standard(transport.site, job)


def test_the_agents_reason_comes_through(transport: Flare) -> None:
    with agent(transport.site):
        assert transport.refused("submit_model", transport.order()) == ("BAD_TASK_DATA", "wrong_round")


def test_where_no_agent_runs_nobody_answered_and_the_site_can_be_asked_again(transport: Flare) -> None:
    assert transport.refused("train", transport.federation.order(transport.federation.job())) == (
        "COMMUNICATION_ERROR",
        "transport",
    )


def test_an_agent_that_was_started_again_is_found_again(transport: Flare) -> None:
    with agent(transport.site):
        order = transport.order()
        first = transport.statement(transport.ask("train", order))
    with agent(transport.site):
        assert transport.refused("train", order) == ("BAD_TASK_DATA", "attestation_required")
        again = transport.statement(transport.ask("train", transport.order()))

    assert first.update_digest == again.update_digest
    assert types(transport.site).count("reserved") == 1


def test_a_loop_in_the_job_is_refused_where_the_agent_trains(transport: Flare) -> None:
    transport.executor = loops.SecureAgent()
    with agent(transport.site):
        assert transport.refused("attest", transport.federation.order(transport.federation.job())) == (
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


def test_an_abort_ends_the_agents_training_between_two_steps_and_is_paid_once(transport: Flare) -> None:
    signal, trainer = Signal(), Holds()
    refused: list[tuple[str, str]] = []
    with agent(transport.site, trainer=trainer) as answering:
        order = transport.order()
        asking = threading.Thread(target=lambda: refused.append(transport.refused("train", order, signal)))
        asking.start()
        assert trainer.inside.wait(20)
        signal.trigger("stop")
        asking.join(20)
        assert refused == [("TASK_ABORTED", "aborted")]
        trainer.let.set()
        wait_until(lambda: answering.refused == 1, what="the agent gave up")
        assert trainer.steps == 2
        assert types(transport.site)[-1] == "content_noted"
        assert transport.site.log()[-1]["reason"] == "aborted"

        said = transport.statement(transport.ask("train", order))
    assert said.update_digest == transport.site.ledger_entries()[-1]["update_digest"]
    assert types(transport.site).count("reserved") == 1


def test_an_executor_in_agent_mode_opens_nothing_of_the_site(transport: Flare, tmp_path: Path) -> None:
    transport.executor = CoreasonExecutor()
    transport.refused("attest", transport.federation.order(transport.federation.job()))

    assert not (transport.site.folder / "audit.jsonl").exists()
