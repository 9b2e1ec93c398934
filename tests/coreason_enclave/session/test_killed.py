"""A site killed at any of its doors answers the next time with the same bytes, and pays once.

The process is forked, the round is run in the child, and the child kills itself just before or just after one
collaborator is used. What is left is a folder; a fresh process then answers the same order.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.hash_log import verify_lines
from coreason_enclave.wire.updates import SealedMessage

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SEED = 5
DOORS = (
    "ledger.hold",
    "ledger.recall",
    "ledger.lineage_claim",
    "ledger.affordable_steps",
    "sentry.declared",
    "sentry.declared again",
    "trainer.train",  # four rehearsals, of one step each
    "step 1",
    "trainer.train again",
    "trainer.train again again",
    "trainer.train again again again",
    "job_keys.key",
    "ledger.draws",
    "ledger.reserve",
    "log.append",
    "sentry.open",
    "signer.sign",
    "ledger.draws again",
    "ledger.note_draw",
    "trainer.train again again again again",
    "step 5",
    "step 7",
    "sentry.release",
    "released.keep",
    "ledger.commit",
    "ledger.head",
    "attester.produce",
    "ledger.job_claim",
    "signer.sign again",
    "signer.sign again again",
    "log.append again",
)
"""In the order in which one round comes to them."""


@dataclass
class Fuse:
    """Notes every door, and kills the process at one of them."""

    door: str | None = None
    when: str = "before"
    passed: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def at(self, door: str, when: str) -> None:
        if (self.door, self.when) == (door, when):
            os.kill(os.getpid(), signal.SIGKILL)

    def through(self, door: str, act: Callable[[], Any]) -> Any:
        name = door + " again" * self.counted[door]
        self.counted[door] += 1
        self.passed.append(name)
        self.at(name, "before")
        try:
            return act()
        finally:
            self.at(name, "after")


class Watched:
    """A collaborator whose every call is a door."""

    def __init__(self, inner: Any, name: str, fuse: Fuse) -> None:
        self._inner, self._name, self._fuse = inner, name, fuse

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        if not callable(value):
            return value
        door = f"{self._name}.{attribute}"
        return lambda *args, **options: self._fuse.through(door, lambda: value(*args, **options))


COLLABORATORS = ("ledger", "sentry", "trainer", "job_keys", "log", "released", "signer")


def answer(site: Any, order: SealedMessage, federation: Any, fuse: Fuse) -> SealedMessage:
    """Answer ``order`` with every collaborator watched, and each step of the training."""
    opened = site.open(seed=SEED, clock=federation.clock)
    steps = iter(range(1, 100))

    def between_steps() -> bool:
        fuse.through(f"step {next(steps)}", lambda: None)
        return False

    watched: dict[str, Any] = {name: Watched(getattr(opened.session, name), name, fuse) for name in COLLABORATORS}
    attester = Watched(opened.session.attester, "attester", fuse)
    watched["handshake"] = replace(opened.session.handshake, attester=attester)
    try:
        result: SealedMessage = replace(opened.session, **watched).run(order, aborted=between_steps)
        return result
    finally:
        opened.close()


def in_child(act: Callable[[], Any]) -> int:
    """0 where ``act`` returned in a forked process, 1 where it raised, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass(frozen=True)
class Undisturbed:
    """A founded site, an order, and the bytes that it is answered with."""

    federation: Any
    site: Any
    order: SealedMessage
    arrays: bytes
    doors: list[str]

    def copy(self, folder: Path) -> Any:
        """The site as it was founded, with nothing answered yet."""
        shutil.copytree(self.federation.root / "founded", folder)
        return replace(self.site, folder=folder)


@pytest.fixture(scope="module")
def undisturbed(federation_at: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    federation = federation_at(tmp_path_factory.mktemp("undisturbed"))
    site = federation.create()
    shutil.copytree(site.folder, federation.root / "founded")
    order, fuse = federation.order(federation.job()), Fuse()
    arrays = answer(site, order, federation, fuse).arrays
    return Undisturbed(federation, site, order, arrays, fuse.passed)


def test_the_doors_are_those_of_an_undisturbed_round(undisturbed: Undisturbed) -> None:
    steps = {f"step {number}" for number in range(1, 9)}
    assert [door for door in undisturbed.doors if door not in steps - set(DOORS)] == list(DOORS)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("door", DOORS)
def test_killed_there_it_answers_the_next_time_with_the_same_bytes_and_pays_once(
    door: str, when: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    site, arrays = undisturbed.copy(tmp_path / "site"), tmp_path / "arrays"

    def round_with(fuse: Fuse) -> int:
        sent = lambda: arrays.write_bytes(answer(site, undisturbed.order, undisturbed.federation, fuse).arrays)  # noqa: E731
        return in_child(sent)

    assert round_with(Fuse(door, when)) == -signal.SIGKILL
    assert not arrays.exists()
    assert round_with(Fuse()) == 0
    assert arrays.read_bytes() == undisturbed.arrays
    types = [entry["type"] for entry in site.ledger_entries()]
    assert sorted(types) == sorted(["founded", "registered", "reserved", "content_noted", "committed"])
    verify_lines((site.folder / "audit.jsonl").read_bytes())
    was_committed = DOORS.index(door) + (when == "after") > DOORS.index("ledger.commit")
    assert site.log()[-1]["outcome"] == ("answered from store" if was_committed else "sealed")
    assert site.ledger_entries()[-1]["event"]["steps"] == 4


def test_killed_before_the_commit_the_round_stays_charged_in_full(undisturbed: Undisturbed, tmp_path: Path) -> None:
    site = undisturbed.copy(tmp_path / "site")
    killed = in_child(lambda: answer(site, undisturbed.order, undisturbed.federation, Fuse("ledger.commit", "before")))
    opened = site.open()
    claim = opened.ledger.lineage_claim(site.lineage)
    opened.close()
    assert killed == -signal.SIGKILL
    assert (claim.open_reservations, claim.spent_pico) == (1, 4 * site.ledger_entries()[2]["step_cost_pico"])


def test_the_sites_own_secret_key_survives_with_the_reservation(federation: Any) -> None:
    """Nothing is injected here: the key that the killed process made is the one that the next process finds."""
    site, order = federation.create(), federation.order(federation.job())

    def first() -> None:
        opened = site.open(clock=federation.clock)
        watched = Watched(opened.session.signer, "signer", Fuse("signer.sign again", "before"))
        replace(opened.session, signer=watched).run(order)

    assert in_child(first) == -signal.SIGKILL
    committed = site.ledger_entries()[-1]
    opened = site.open(clock=federation.clock)
    sealed = opened.session.run(order)
    opened.close()
    assert committed["type"] == "committed"
    assert sha256_hex(sealed.arrays) == committed["update_digest"]
    assert site.ledger_entries()[-1] == committed
