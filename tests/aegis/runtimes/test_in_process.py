"""The in-process grid keeps Flower's contract, and carries without changing a bit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.run import Run

from aegis.federated_coordinator import FederatedCoordinator
from aegis.rounds.attestation_handshake import CoordinatorHandshake
from aegis.rounds.context import ParticipantView
from aegis.rounds.journal import RunRecords
from aegis.runtimes.in_process import InProcessGrid, initial_model, open_sites, seeded_keys
from aegis.security.audit import HashLog
from aegis.stores.heads import FileHeadStore
from aegis.stores.run_store import FileRunStore
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.challenges import FileChallenges
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.policy import Profile
from coreason_enclave.wire.updates import encode_arrays, model_digest

Federation = Any
PATIENCE_S = 30.0


def app(act: Callable[[Message], Message]) -> ClientApp:
    answering = ClientApp()

    @answering.train()
    def train(message: Message, context: Context) -> Message:
        return act(message)

    return answering


def echo(message: Message) -> Message:
    return Message(content=message.content, reply_to=message)


def fail(message: Message) -> Message:
    raise ValueError("patient p007 has no age")


def asking(node: int, text: str = "") -> Message:
    return Message(RecordDict({"said": ConfigRecord({"text": text})}), dst_node_id=node, message_type="train")


def text_of(reply: Message) -> object:
    return reply.content.config_records["said"]["text"]


@contextmanager
def grid_of(apps: dict[int, ClientApp], **options: Any) -> Iterator[InProcessGrid]:
    grid = InProcessGrid(apps, **options)
    try:
        yield grid
    finally:
        grid.close()


# --- the contract ---------------------------------------------------------------------------------------------


def test_each_node_answers_its_own_message_and_names_itself() -> None:
    with grid_of({1: app(echo), 2: app(echo)}) as grid:
        replies = list(grid.send_and_receive([asking(1, "to one"), asking(2, "to two")]))
    assert {reply.metadata.src_node_id: text_of(reply) for reply in replies} == {1: "to one", 2: "to two"}


def test_a_reply_names_the_message_that_it_answers() -> None:
    with grid_of({1: app(echo)}) as grid:
        (message_id,) = grid.push_messages([asking(1)])
        (reply,) = wait_for(grid, [message_id])
    assert reply.metadata.reply_to_message_id == message_id


def wait_for(grid: InProcessGrid, message_ids: list[str]) -> list[Message]:
    """Pull until all are in; the pool ends every task, so this ends."""
    replies: list[Message] = []
    while len(replies) < len(message_ids):
        replies += grid.pull_messages(message_ids)
    return replies


def test_a_reply_is_pulled_once() -> None:
    with grid_of({1: app(echo)}) as grid:
        message_ids = list(grid.push_messages([asking(1), asking(1)]))
        assert len(set(message_ids)) == 2
        assert len(wait_for(grid, message_ids)) == 2
        assert list(grid.pull_messages(message_ids)) == []
        assert list(grid.pull_messages(["never pushed"])) == []


def test_waiting_ends_when_a_reply_is_in_and_not_before_nor_after() -> None:
    release = threading.Event()

    def slowly(message: Message) -> Message:
        release.wait(PATIENCE_S)
        return echo(message)

    with grid_of({1: app(slowly)}) as grid:
        (message_id,) = grid.push_messages([asking(1)])
        grid.wait_for_reply(0.01)
        assert list(grid.pull_messages([message_id])) == []
        release.set()
        grid.wait_for_reply(PATIENCE_S)  # longer than the test may take
        assert len(list(grid.pull_messages([message_id]))) == 1


def test_a_timeout_returns_what_is_in_and_the_rest_can_be_pulled_later() -> None:
    release = threading.Event()

    def slowly(message: Message) -> Message:
        release.wait(PATIENCE_S)
        return echo(message)

    with grid_of({1: app(echo), 2: app(slowly)}, threads=2) as grid:
        first = grid.push_messages([asking(1, "quick")])
        wait_for(grid, list(first))
        (slow_id,) = grid.push_messages([asking(2, "slow")])
        assert list(grid.pull_messages([slow_id])) == []
        in_time = list(grid.send_and_receive([asking(1, "quick again"), asking(2, "never in time")], timeout=1.0))
        assert [text_of(reply) for reply in in_time] == ["quick again"]
        release.set()
        assert [text_of(reply) for reply in wait_for(grid, [slow_id])] == ["slow"]


def test_late_sites_do_not_hold_up_the_others_however_few_compute_side_by_side() -> None:
    release = threading.Event()

    def hangs(message: Message) -> Message:
        release.wait(PATIENCE_S)
        return echo(message)

    with grid_of(
        {1: app(hangs), 2: app(hangs), **{node: app(echo) for node in (3, 4, 5)}}, threads=2, patience_s=0.05
    ) as grid:
        late = list(grid.push_messages([asking(1, "late"), asking(2, "late")]))
        quick = list(grid.push_messages([asking(node, "quick") for node in (3, 4, 5)]))
        assert [text_of(reply) for reply in wait_for(grid, quick)] == ["quick"] * 3
        assert list(grid.pull_messages(late)) == []
        release.set()
        assert [text_of(reply) for reply in wait_for(grid, late)] == ["late"] * 2


def test_a_site_answers_its_messages_one_by_one_in_order() -> None:
    active, most, seen = list[Message](), list[int](), list[object]()

    def alone(message: Message) -> Message:
        active.append(message)
        most.append(len(active))
        seen.append(text_of(message))
        active.remove(message)
        return echo(message)

    with grid_of({1: app(alone)}, threads=4) as grid:
        wait_for(grid, list(grid.push_messages([asking(1, str(number)) for number in range(50)])))
    assert seen == [str(number) for number in range(50)]
    assert max(most) == 1


def test_a_grid_with_a_site_that_hangs_can_be_closed() -> None:
    release = threading.Event()
    grid = InProcessGrid({1: app(lambda message: (release.wait(PATIENCE_S), echo(message))[1])})
    grid.push_messages([asking(1, "hangs")])
    started = time.monotonic()
    grid._lanes.close(within_s=0.1)
    assert time.monotonic() - started < PATIENCE_S / 2
    release.set()


def test_a_broken_app_is_one_error_reply_without_its_text_and_the_others_answer() -> None:
    with grid_of({1: app(fail), 2: app(echo)}) as grid:
        replies = {r.metadata.src_node_id: r for r in grid.send_and_receive([asking(1), asking(2, "fine")])}
    assert replies[1].has_error()
    assert "p007" not in f"{replies[1].error.reason}{replies[1].error}"
    assert text_of(replies[2]) == "fine"


def test_a_message_of_a_kind_that_no_app_handles_is_an_error_reply() -> None:
    with grid_of({1: app(echo)}) as grid:
        evaluate = Message(RecordDict(), dst_node_id=1, message_type="evaluate")
        (reply,) = grid.send_and_receive([evaluate])
    assert reply.has_error()


def test_a_message_to_a_node_that_is_not_there_is_an_error_reply_and_the_others_answer() -> None:
    with grid_of({1: app(echo)}) as grid:
        replies = {r.metadata.src_node_id: r for r in grid.send_and_receive([asking(9), asking(1, "fine")])}
    assert replies[9].has_error()
    assert text_of(replies[1]) == "fine"


def test_nodes_and_run_are_as_given() -> None:
    with grid_of({3: app(echo), 5: app(echo)}) as grid:
        assert set(grid.get_node_ids()) == {3, 5}
        run = Run.create_empty(7)
        grid.set_run(run)
        assert grid.run is run
        message = grid.create_message(RecordDict(), "train", 3, "1", ttl=10.0)
        assert (message.metadata.dst_node_id, message.metadata.group_id, message.metadata.ttl) == (3, "1", 10.0)


# --- whole runs -----------------------------------------------------------------------------------------------


@pytest.fixture
def run_model(federation: Federation, tmp_path: Path) -> Callable[..., bytes]:
    """Found three sites once more and run two rounds over them; the released model's bytes."""
    numbers: Iterable[int] = iter(range(1000))

    def run(*, seed: int | None, threads: int | None = None, reverse: bool = False) -> bytes:
        folder = tmp_path / f"run-{next(iter(numbers))}"
        sites = [
            type(federation)(folder / "sites", federation.signer, federation.now).create(f"clinic-{n}", rows=n)
            for n in (1, 2, 3)
        ]
        folders, keys = [site.folder for site in sites], {site.config.site_id: site.public_key for site in sites}
        job = federation.job(min_clients=3, rounds=2, local_steps=3, aggregator="trimmed_mean", num_byzantine=1)
        audit = HashLog(folder / "audit.jsonl")
        with open_sites(
            folders[::-1] if reverse else folders, keys, job_keys=lambda site: seeded_keys(seed, site)
        ) as opened:
            grid = ReversedGrid(opened.grid, threads) if reverse or threads else opened.grid
            appraiser = Appraiser(AttestationPolicy.simulated_only(), Profile.DEVELOPMENT, NoEndorsements())
            challenges = FileChallenges(folder / "challenges")
            coordinator = FederatedCoordinator(
                job,
                ParticipantView(opened.participants[::-1] if reverse else opened.participants),
                CoordinatorHandshake(federation.signer, appraiser, SimulatedAttester(), challenges),
                RunRecords(FileRunStore(folder / "state"), audit, FileHeadStore(folder / "heads")),
            )
            model = coordinator.run(grid, initial_model(job))
            if isinstance(grid, ReversedGrid):
                grid.close()
        audit.close()
        return encode_arrays(model)

    return run


class ReversedGrid(InProcessGrid):
    """The same sites on another number of threads, asked and heard in the opposite order."""

    def __init__(self, grid: InProcessGrid, threads: int | None) -> None:
        super().__init__(grid._apps, threads=threads)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return list(super().push_messages(list(messages)[::-1]))[::-1]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(super().pull_messages(message_ids))[::-1]


def test_with_the_same_injected_keys_threads_and_order_change_no_bit(run_model: Callable[..., bytes]) -> None:
    models = {
        run_model(seed=7),
        run_model(seed=7, threads=1),
        run_model(seed=7, threads=2),
        run_model(seed=7, threads=3, reverse=True),
    }
    assert len(models) == 1


def test_another_seed_or_none_at_all_gives_another_model(run_model: Callable[..., bytes]) -> None:
    models = [run_model(seed=7), run_model(seed=8), run_model(seed=None), run_model(seed=None)]
    assert len(set(models)) == 4


def test_every_site_has_its_own_injected_keys() -> None:
    keys = [seeded_keys(seed, site) for seed, site in ((7, "clinic-1"), (7, "clinic-2"), (71, "clinic-1"))]
    assert len({key.key("ab" * 32) for key in keys if key is not None}) == 3
    assert all(key is not None and key.unsafe_seeded for key in keys)
    assert seeded_keys(None, "clinic-1") is None


def test_a_site_that_nobody_registered_is_not_asked(federation: Federation) -> None:
    sites = [federation.create(name) for name in ("clinic-1", "clinic-2")]
    keys = {"clinic-2": sites[1].public_key}
    with open_sites([site.folder for site in sites], keys) as opened:
        assert [participant.site_id for participant in opened.participants] == ["clinic-2"]
        assert len(list(opened.grid.get_node_ids())) == 1


def test_a_job_starts_from_public_weights_that_anyone_can_recompute(federation: Federation) -> None:
    job = federation.job(model_arch="SimpleMLP", model_args={"in_features": 3, "hidden": 2})
    assert model_digest(initial_model(job)) == model_digest(initial_model(job))
    assert model_digest(initial_model(job)) != model_digest(initial_model(federation.job()))
