"""A site that has answered one honest round, and a coordinator that now turns hostile with a key the site trusts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.federation.flower import client_app
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.updates import WIRE_RECORD, SealedMessage

Federation = Any


class NeverTrains:
    """A trainer that must not be asked."""

    def train(self, task: Any) -> Any:
        raise AssertionError("a refused order reached the rows")


def send(session: Any, message: SealedMessage, kind: str = "train") -> Any:
    """The site's whole reply: what leaves it, as the carrier takes it."""
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0  # Flower stamps messages with it
    content = RecordDict({WIRE_RECORD: ConfigRecord({**message.to_fields()})})
    return client_app(session)(Message(content=content, dst_node_id=1, message_type=kind), None)


def what_left(reply: Any) -> tuple[Any, ...]:
    """Everything in a refusal that the coordinator can read."""
    assert reply.has_error()
    return reply.error.code, reply.error.reason, reply.has_content()


@dataclass(frozen=True)
class Target:
    """The site's folder, and what the coordinator learnt from the honest round."""

    federation: Federation
    site: Any
    honest: SealedMessage
    answer: SealedMessage

    @property
    def statement(self) -> UpdateStatement:
        keys = KeyRing({"clinic-1": self.site.public_key})
        return UpdateStatement.from_payload(open_envelope(self.answer.envelope, UPDATE_TYPE, keys).payload)

    def at(self, folder: Path) -> Target:
        """The same site in a copy of its folder."""
        shutil.copytree(self.site.folder, folder)
        return replace(self, site=replace(self.site, folder=folder))

    def files(self) -> dict[str, bytes]:
        """All that the site keeps, but for its log, what it witnessed, and SQLite's housekeeping."""
        left_out = ("audit.jsonl", "-wal", "-shm", ".lock")
        return {
            str(path.relative_to(self.site.folder)): path.read_bytes()
            for path in sorted(self.site.folder.rglob("*"))
            if path.is_file() and not path.name.endswith(left_out) and ".sqlite" not in path.name
            if path.parent.name != "checkpoints"
        }


def job(federation: Federation, **changes: Any) -> Any:
    return federation.job(**{"min_clients": 2, **changes})


@pytest.fixture(scope="session")
def study_job() -> Callable[..., Any]:
    """The job that the coordinator runs with two clinics, or one with changes to it."""
    return job


@pytest.fixture(scope="module")
def founded(federation_at: Callable[[Path], Federation], tmp_path_factory: pytest.TempPathFactory) -> Target:
    federation = federation_at(tmp_path_factory.mktemp("hostile"))
    site = federation.create(policy={"min_clients": 2}, lineage={"epsilon": 8.0, "job_epsilon": 8.0})
    order = federation.order(job(federation))
    opened = site.open(clock=federation.clock)
    answer = opened.session.run(order)
    opened.close()
    return Target(federation, site, order, answer)


@pytest.fixture
def target(founded: Target, tmp_path: Path) -> Target:
    return founded.at(tmp_path / "site")
