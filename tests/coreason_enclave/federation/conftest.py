"""A founded site, a coordinator that attests with it, FLARE's own context around an executor. No FLARE server runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace

from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.federation.nvflare.messages import message_in, sealed_reply
from coreason_enclave.federation.nvflare.settings import SETTINGS_FILE
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.updates import SealedMessage
from tests.support.proving import ProvingCoordinator

SEED = 7


class AfterLooks(Signal):
    """Triggered once it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def triggered(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@dataclass
class Flare:
    """One client's side of FLARE, in one workspace: what it gives an executor, and what comes back."""

    federation: Any
    site: Any
    root: Path
    executor: CoreasonExecutor = field(default_factory=CoreasonExecutor)
    name: str = "clinic-1"

    def __post_init__(self) -> None:
        for folder in ("local", "startup"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def configured(self, **changes: Any) -> Flare:
        """With such a ``coreason.json``; None leaves a field out."""
        fields = {"version": 1, "runs": "session", "sites": {"clinic-1": str(self.site.folder)}, "unsafe_seed": SEED}
        kept = {name: value for name, value in {**fields, **changes}.items() if value is not None}
        (self.root / "local" / SETTINGS_FILE).write_text(json.dumps(kept))
        return self

    def get_workspace(self) -> Workspace:
        """As FLARE's engine has it."""
        return Workspace(str(self.root), self.name)

    def context(self) -> FLContext:
        """A task's context."""
        stickers: dict[str, Any] = {"public_stickers": {}, "private_stickers": {}}
        return FLContextManager(engine=self, identity_name=self.name, job_id="job", **stickers).new_context()

    def execute(self, task: str, shareable: Shareable, signal: Signal | None = None) -> Shareable:
        """As FLARE's client runner calls it."""
        return self.executor.execute(task, shareable, self.context(), signal or Signal())

    def ask(self, task: str, message: SealedMessage, signal: Signal | None = None) -> SealedMessage:
        """What a sealed message is answered with."""
        reply = self.execute(task, sealed_reply(message), signal)
        assert reply.get_return_code() == "OK", reply.get_header("aegis_reason")
        return message_in(reply)

    def refused(self, task: str, message: SealedMessage, signal: Signal | None = None) -> tuple[str, str]:
        """Return code and reason; the reply holds nothing else."""
        reply = self.execute(task, sealed_reply(message), signal)
        assert reply.keys() == {"__headers__"}
        assert reply["__headers__"].keys() == {"__rc__", "aegis_reason"}
        return reply.get_return_code(), reply.get_header("aegis_reason")

    def order(self, job: Any = None, **changes: Any) -> SealedMessage:
        """A sealed order to this site, which attests through the executor."""
        coordinator = ProvingCoordinator(self.federation, self.root / "coordinator")
        asked = self.federation.job() if job is None else job
        return coordinator.order(asked, self.site, lambda message: self.ask("attest", message), **changes)

    def statement(self, answer: SealedMessage) -> UpdateStatement:
        """What the site signed over."""
        keys = KeyRing({self.name: self.site.public_key})
        return UpdateStatement.from_payload(open_envelope(answer.envelope, UPDATE_TYPE, keys).payload)

    def end(self) -> None:
        """The end of a run."""
        self.executor.handle_event(EventType.END_RUN, self.context())


@pytest.fixture
def federation(federation: Any) -> Any:
    """Whose clock is this host's: an executor has no other."""
    return replace(federation, now=int(time.time()))


@pytest.fixture
def flare(federation: Any, tmp_path: Path) -> Any:
    """FLARE around a founded site whose sessions run in FLARE's process."""
    flare = Flare(federation, federation.create(), tmp_path / "flare").configured()
    yield flare
    flare.executor.close()


@pytest.fixture
def standard(federation: Any) -> Callable[..., str]:
    """The SHA-256 of the update that the standard trainer makes of an order, in process."""

    def digest(site: Any, job: Any, **changes: Any) -> str:
        from coreason_enclave.crypto.encoding import sha256_hex
        from coreason_enclave.crypto.job_keys import unsafe_seeded_keys
        from coreason_enclave.site.opening import open_site
        from tests.support.in_the_open import in_the_open

        opened = in_the_open(open_site(site.folder, job_keys=unsafe_seeded_keys(SEED, "clinic-1")))
        try:
            return sha256_hex(opened.session.run(federation.order(job, **changes)).arrays)
        finally:
            opened.close()

    return digest
