"""A coordinator's grid against a real SuperLink; nodes are Flower's own connection, driven by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supernode.fleet_http_connection import http_request_response

import aegis.federated_coordinator as coordinator_module
from aegis.errors import TransportUnavailable
from aegis.federated_coordinator import CUT_OFF, GridTransport
from aegis.runtimes.flower import grid as grid_module
from aegis.runtimes.flower.control import SuperLinkControl
from aegis.runtimes.flower.run_driver import DrivenGrid, driving
from aegis.runtimes.flower.storage import SuperLinkStorage
from aegis.runtimes.flower.superlink import (
    SuperLinkEndpoint,
    SuperLinkFiles,
    flower_environment,
    superlink_command,
)
from aegis.security.pki import create_authority
from aegis.services.participants import free_ports
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.site.tls_keys import node_key_text
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.flower.deployments import wait_for

NODES = ("north", "south")


@dataclass
class RealSuperLink:
    """A SuperLink on loopback with two registered nodes."""

    files: SuperLinkFiles
    endpoint: SuperLinkEndpoint
    keys: dict[str, ec.EllipticCurvePrivateKey]
    node_ids: dict[str, int]
    process: Any = None

    def start(self) -> None:
        port, health = int(self.endpoint.address.rpartition(":")[2]), free_ports(1)[0]
        command = superlink_command(self.files, port=port, health_port=health)
        self.process = spawn(command, log=self.files.folder / "log", env=flower_environment(self.files.home))
        wait_for(self.endpoint.serves, "SuperLink serves")

    def stop(self) -> None:
        terminate(self.process)


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSuperLink]:
    folder = tmp_path_factory.mktemp("superlink")
    create_authority(folder / "pki").issue_server("superlink", ["127.0.0.1", "localhost"])
    files = SuperLinkFiles(folder / "flower", folder / "pki")
    files.prepare()
    SuperLinkStorage(files.database).prepare()
    keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in NODES}
    real = RealSuperLink(files, files.endpoint(free_ports(1)[0]), keys, {})
    real.start()
    try:
        with SuperLinkControl(real.endpoint) as control:
            texts = {name: node_key_text(key) for name, key in keys.items()}
            control.register(texts)
            control.register(texts)  # again changes nothing
            known = control.nodes()
        real.node_ids = {name: known[text] for name, text in texts.items()}
        yield real
    finally:
        real.stop()


@dataclass
class Node:
    """One site's end of Flower's fleet protocol."""

    callbacks: tuple[Any, ...]

    def receive(self) -> Message:
        message, tree = wait_for(self.callbacks[1], "a message", within_s=10)
        pull, confirm = self.callbacks[5], self.callbacks[7]
        from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree

        whole = pull_and_inflate_object_from_tree(
            tree,
            lambda object_id: pull(message.metadata.run_id, object_id),
            lambda object_id: confirm(message.metadata.run_id, object_id),
            return_type=Message,
            initial_backoff=0.02,
        )
        whole.metadata.__dict__["_message_id"] = tree.object_id
        return whole

    def answer(self, reply: Message, *, objects: bool = True, tree_of: Message | None = None) -> Callable[[], None]:
        """Push ``reply``; the returned function pushes its objects, which is done at once unless ``objects`` is off."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        wanted, session = self.callbacks[2](reply, get_object_tree(tree_of or reply), 0.0)
        contents = {key: value.deflate() for key, value in get_all_nested_objects(reply).items() if key in wanted}

        def push() -> None:
            for object_id, content in contents.items():
                self.callbacks[6](reply.metadata.run_id, session, object_id, content)

        if objects:
            push()
        return push


@pytest.fixture
def nodes(superlink: RealSuperLink) -> Iterator[dict[str, Node]]:
    with ExitStack() as opened:
        yield {name: opened.enter_context(connected(superlink, name)) for name in NODES}


@contextmanager
def connected(superlink: RealSuperLink, name: str) -> Iterator[Node]:
    key, certificate = superlink.keys[name], superlink.endpoint.ca_certificate.read_bytes()
    with http_request_response(superlink.endpoint.address, False, certificate, (key, key.public_key())) as callbacks:
        yield Node(callbacks)


@pytest.fixture
def grid(superlink: RealSuperLink, tmp_path: Path) -> Iterator[DrivenGrid]:
    with driving(superlink.endpoint, tmp_path / "note.json") as driven:
        yield driven


def order(node_id: int, number: int = 1) -> Message:
    content = RecordDict({"aegis": ConfigRecord({"number": number, "arrays": b"x" * 1000})})
    return Message(content=content, dst_node_id=node_id, message_type="train", group_id="1", ttl=60.0)


def reply_to(message: Message, number: int = 7) -> Message:
    return Message(content=RecordDict({"aegis": ConfigRecord({"number": number})}), reply_to=message)


def number_of(message: Message) -> object:
    return message.content.config_records["aegis"]["number"]


def pulled(grid: DrivenGrid, message_ids: list[str]) -> Message:
    replies = wait_for(lambda: list(grid.pull_messages(message_ids)), "a reply", within_s=10)
    assert len(replies) == 1
    return replies[0]


def public_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*form)


def test_an_order_goes_out_and_its_answer_comes_back(
    superlink: RealSuperLink, grid: DrivenGrid, nodes: dict[str, Node]
) -> None:
    (message_id,) = grid.push_messages([order(superlink.node_ids["north"], 3)])
    received = nodes["north"].receive()
    nodes["north"].answer(reply_to(received))
    reply = pulled(grid, [message_id])

    assert number_of(received) == 3
    assert number_of(reply) == 7
    assert reply.metadata.reply_to_message_id == message_id
    assert reply.metadata.src_node_id == superlink.node_ids["north"]


def test_who_answered_is_what_superlink_authenticated_and_not_what_the_answer_says(
    superlink: RealSuperLink, grid: DrivenGrid, nodes: dict[str, Node]
) -> None:
    north, south = grid.push_messages([order(superlink.node_ids["north"]), order(superlink.node_ids["south"])])
    honest = reply_to(nodes["north"].receive())
    claimed = reply_to(nodes["south"].receive())
    # The outer description, which SuperLink checks, is the sender's own; the object inside claims to be the other's.
    inner = reply_to(honest)
    inner.metadata.__dict__.update(
        _src_node_id=superlink.node_ids["south"], _reply_to_message_id=south, _run_id=honest.metadata.run_id
    )
    inner.metadata.__dict__["_message_id"] = inner.object_id
    outer = honest.metadata.__dict__
    outer["_message_id"] = inner.object_id
    wanted, session = nodes["north"].callbacks[2](honest, get_object_tree(inner), 0.0)
    for object_id, value in get_all_nested_objects(inner).items():
        if object_id in wanted:
            nodes["north"].callbacks[6](honest.metadata.run_id, session, object_id, value.deflate())
    reply = pulled(grid, [north, south])

    assert reply.metadata.src_node_id == superlink.node_ids["north"]
    assert reply.metadata.reply_to_message_id == north
    assert claimed.metadata.src_node_id == superlink.node_ids["south"]


def test_an_answer_whose_objects_are_still_on_their_way_keeps_nobody_waiting(
    superlink: RealSuperLink, grid: DrivenGrid, nodes: dict[str, Node]
) -> None:
    north, south = grid.push_messages([order(superlink.node_ids["north"]), order(superlink.node_ids["south"])])
    push_the_rest = nodes["north"].answer(reply_to(nodes["north"].receive(), 1), objects=False)
    nodes["south"].answer(reply_to(nodes["south"].receive(), 2))
    started = time.monotonic()
    first = pulled(grid, [north, south])
    took = time.monotonic() - started
    push_the_rest()
    second = pulled(grid, [north])

    assert (number_of(first), number_of(second)) == (2, 1)
    assert took < 5


def test_an_answer_that_never_comes_whole_is_an_error_in_its_place(
    superlink: RealSuperLink, grid: DrivenGrid, nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "_OBJECT_PATIENCE_S", 0.2)
    (message_id,) = grid.push_messages([order(superlink.node_ids["north"])])
    nodes["north"].answer(reply_to(nodes["north"].receive()), objects=False)
    reply = pulled(grid, [message_id])

    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert reply.metadata.reply_to_message_id == message_id


def test_an_answer_of_more_objects_than_ours_have_is_not_fetched(
    superlink: RealSuperLink, grid: DrivenGrid, nodes: dict[str, Node]
) -> None:
    (message_id,) = grid.push_messages([order(superlink.node_ids["north"])])
    records = {f"record-{number}": ConfigRecord({"number": number}) for number in range(20)}
    nodes["north"].answer(Message(content=RecordDict(records), reply_to=nodes["north"].receive()))

    assert pulled(grid, [message_id]).error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_a_node_that_never_joined_is_not_taken_and_the_others_are(superlink: RealSuperLink, grid: DrivenGrid) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with SuperLinkControl(superlink.endpoint) as control:
        control.register({"absent": node_key_text(key)})
        absent = control.nodes()[node_key_text(key)]
    with connected(superlink, "north"):
        message_ids = list(grid.push_messages([order(absent), order(superlink.node_ids["north"])]))

    assert message_ids[0] == ""
    assert message_ids[1]


def test_a_run_that_superlink_ended_is_followed_by_another(
    superlink: RealSuperLink, grid: DrivenGrid, nodes: dict[str, Node]
) -> None:
    (lost,) = grid.push_messages([order(superlink.node_ids["north"])])
    with SuperLinkControl(superlink.endpoint) as control:
        control.stop_run(grid.run.run_id)
    with pytest.raises(TransportUnavailable, match="refused the run's token"):
        grid.pull_messages([lost])
    (message_id,) = grid.push_messages([order(superlink.node_ids["north"], 5)])
    received = nodes["north"].receive()
    nodes["north"].answer(reply_to(received))
    replies = {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages([lost])}

    assert replies[lost].error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert number_of(received) == 5
    assert number_of(pulled(grid, [message_id])) == 7


def test_the_next_coordinator_of_a_job_ends_the_run_that_a_killed_one_left(
    superlink: RealSuperLink, tmp_path: Path
) -> None:
    note = tmp_path / "note.json"
    abandoned = DrivenGrid(superlink.endpoint, note)
    abandoned.start()
    abandoned._closed.set()  # as if its process had been killed: no heartbeat, and no leave taken
    left = abandoned.run.run_id
    noted = json.loads(note.read_bytes())
    with driving(superlink.endpoint, note), SuperLinkControl(superlink.endpoint) as control:
        during = control.unfinished_runs()
    with SuperLinkControl(superlink.endpoint) as control:
        after = control.unfinished_runs()
    abandoned.close()

    assert noted == {"run_id": left}
    assert left not in during
    assert len(during) == 1
    assert after == ()
    assert not note.exists()


def test_a_task_that_a_killed_starter_left_pending_is_not_mistaken_for_ones_own(
    superlink: RealSuperLink, tmp_path: Path
) -> None:
    with SuperLinkControl(superlink.endpoint) as control:
        pending = control.start_run()
    with driving(superlink.endpoint, tmp_path / "note.json") as grid, SuperLinkControl(superlink.endpoint) as control:
        runs = control.unfinished_runs()

        assert grid.run.run_id != pending
        assert runs == (grid.run.run_id,)


def test_it_goes_on_after_superlink_was_killed_and_started_again(
    superlink: RealSuperLink, grid: DrivenGrid, nodes: dict[str, Node]
) -> None:
    run_id = grid.run.run_id
    (message_id,) = grid.push_messages([order(superlink.node_ids["south"], 8)])
    superlink.process.kill()
    superlink.process.wait()
    superlink.start()
    received = nodes["south"].receive()
    nodes["south"].answer(reply_to(received))

    assert number_of(received) == 8
    assert number_of(pulled(grid, [message_id])) == 7
    assert grid.run.run_id == run_id


def test_without_superlink_a_call_fails_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_authority(tmp_path / "pki")
    files = SuperLinkFiles(tmp_path / "flower", tmp_path / "pki")
    files.prepare()
    endpoint = files.endpoint(free_ports(1)[0])

    monkeypatch.setattr("aegis.runtimes.flower.run_driver._START_S", 0.1)

    assert not endpoint.serves()
    with pytest.raises(TransportUnavailable, match="cannot be reached"), driving(endpoint, tmp_path / "note.json"):
        pass


def test_the_secret_and_its_folder_are_the_owners_alone(tmp_path: Path) -> None:
    files = SuperLinkFiles(tmp_path / "flower", tmp_path / "pki")
    files.prepare()

    assert files.secret.stat().st_mode & 0o777 == 0o600
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert str(files.secret) in superlink_command(files, port=1, health_port=2)
    assert files.secret.read_bytes().hex() not in " ".join(superlink_command(files, port=1, health_port=2))


def test_flower_processes_inherit_neither_telemetry_nor_proxies(tmp_path: Path) -> None:
    environment = flower_environment(tmp_path, {"PATH": "/bin", "NO_PROXY": "example.org", "HTTPS_PROXY": "http://p"})

    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert {"example.org", "127.0.0.1", "localhost"} <= set(environment["NO_PROXY"].split(","))


def test_an_answer_that_was_cut_off_is_told_at_once_in_its_sites_name(
    superlink: RealSuperLink, nodes: dict[str, Node], tmp_path: Path
) -> None:
    cut: set[str] = set()
    with driving(superlink.endpoint, tmp_path / "cut.json", lambda: cut) as grid:
        first, second = grid.push_messages([order(superlink.node_ids[name]) for name in NODES])
        received = nodes["north"].receive()
        nodes["north"].answer(Message(RecordDict(), reply_to=received), objects=False)
        assert list(grid.pull_messages([first, second])) == []
        cut.add(first)
        [told] = grid.pull_messages([first, second])

        assert (told.metadata.reply_to_message_id, told.metadata.src_node_id) == (first, superlink.node_ids["north"])
        inbound = GridTransport(grid, time.sleep)
        assert (told.error.code, told.error.reason) == (CUT_OFF, "oversized")
        assert isinstance(coordinator_module._content(told), EnvelopeError)
        assert inbound.pull([second]) == []
        nodes["south"].answer(Message(RecordDict(), reply_to=nodes["south"].receive()))
        [reply] = wait_for(lambda: list(grid.pull_messages([second])), "the other's answer", within_s=10)
        assert not reply.has_error()


@pytest.mark.slow
def test_what_consumed_answers_took_on_disk_is_given_back_while_superlink_runs(
    superlink: RealSuperLink, nodes: dict[str, Node], grid: DrivenGrid
) -> None:
    storage, database = SuperLinkStorage(superlink.files.database), superlink.files.database
    write_ahead = database.with_name(f"{database.name}-wal")

    def on_disk() -> int:
        return database.stat().st_size + write_ahead.stat().st_size

    [message_id] = grid.push_messages([order(superlink.node_ids["north"])])
    content = RecordDict({"aegis": ConfigRecord({"arrays": bytes(40 << 20)})})
    nodes["north"].answer(Message(content, reply_to=nodes["north"].receive()))
    grown = on_disk()  # before the answer is consumed: SuperLink may give the room back at any moment after that
    wait_for(lambda: list(grid.pull_messages([message_id])), "the answer", within_s=20)

    def given_back() -> bool:
        storage.tidy()
        return on_disk() < 24 << 20

    wait_for(given_back, "the room is given back", within_s=20)
    assert grown > 40 << 20
    [again] = grid.push_messages([order(superlink.node_ids["north"], 2)])
    nodes["north"].answer(Message(RecordDict(), reply_to=nodes["north"].receive()))
    assert wait_for(lambda: list(grid.pull_messages([again])), "the next answer", within_s=10)
