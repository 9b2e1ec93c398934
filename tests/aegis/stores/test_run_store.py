"""A coordinator's durable state: whole after a crash at any write, refused when damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aegis.errors import RunFolderError
from aegis.stores.run_state import RoundRecord, RunState
from aegis.stores.run_store import FileRunStore
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.schemas import Provenance
from coreason_enclave.system import files
from coreason_enclave.wire.updates import encode_arrays

JOB = "ab" * 32


def a_model(value: float) -> dict[str, np.ndarray]:
    return {"weight": np.full((2, 3), value, np.float32), "bias": np.array([value], np.float32)}


def a_state(rounds: int = 0) -> RunState:
    digests = [sha256_hex(encode_arrays(a_model(number))) for number in range(rounds + 1)]
    history = tuple(
        RoundRecord(
            round_number=number,
            admitted=("a", "b"),
            refused={"c": "late"},
            used=("a", "b"),
            provenance={"a": Provenance.SIMULATED, "b": Provenance.SIMULATED},
            steps={"a": 4 * number, "b": 4 * number},
            epsilon={"a": 0.1 * number, "b": None},
            model_digest=digests[number],
            metrics={"auc": 0.7},
            seconds=0.25,
        )
        for number in range(1, rounds + 1)
    )
    return RunState(job_digest=JOB, nonces={"a": "cd" * 32}, models=tuple(digests), history=history)


class RunStoreConformance:
    """What every store of a run promises; a store joins by a fixture that opens it again and again."""

    @pytest.fixture
    def reopen(self) -> Callable[[], FileRunStore]:
        raise NotImplementedError

    def test_a_new_store_holds_no_state(self, reopen: Callable[[], FileRunStore]) -> None:
        assert reopen().load() is None

    @pytest.mark.parametrize("rounds", [0, 1, 3])
    def test_what_was_saved_is_loaded_by_whoever_comes_next(
        self, reopen: Callable[[], FileRunStore], rounds: int
    ) -> None:
        reopen().save(a_state(rounds))

        loaded = reopen().load()

        assert loaded == a_state(rounds)
        assert loaded is not None
        assert loaded.completed_rounds == rounds

    def test_the_last_state_is_the_one_that_counts(self, reopen: Callable[[], FileRunStore]) -> None:
        store = reopen()
        store.save(a_state(1))
        store.save(a_state(2))

        assert reopen().load() == a_state(2)

    def test_a_model_comes_back_under_its_digest_bit_for_bit(self, reopen: Callable[[], FileRunStore]) -> None:
        digest = reopen().save_model(a_model(1 / 3))

        loaded = reopen().load_model(digest)

        assert digest == sha256_hex(encode_arrays(a_model(1 / 3)))
        assert all((loaded[name] == array).all() for name, array in a_model(1 / 3).items())
        assert loaded.keys() == a_model(1 / 3).keys()

    def test_the_same_model_twice_is_one_model(self, reopen: Callable[[], FileRunStore]) -> None:
        assert reopen().save_model(a_model(1)) == reopen().save_model(a_model(1))

    def test_a_model_that_was_never_saved_is_refused(self, reopen: Callable[[], FileRunStore]) -> None:
        with pytest.raises(RunFolderError, match="missing or damaged"):
            reopen().load_model("00" * 32)


class TestFileRunStore(RunStoreConformance):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], FileRunStore]:
        return lambda: FileRunStore(tmp_path / "state")


class Killed(BaseException):
    """The process ends here: nothing of ours may catch it and go on."""


WRITES = ("open", "write", "fsync", "rename", "fsync of the folder")


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the n-th call that touches the disk the last one of this life."""

    def arm(number: int) -> None:
        calls = iter(range(number))
        real_fsync, real_replace, real_open = os.fsync, Path.replace, os.open

        def step() -> None:
            if next(calls, None) is None:
                raise Killed

        def fsync(descriptor: int) -> None:
            step()
            real_fsync(descriptor)

        def replace(self: Path, target: Path) -> Path:
            step()
            return real_replace(self, target)

        def open_new(path: Path, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_CREAT:
                step()
            return real_open(path, flags, mode)

        monkeypatch.setattr(files.os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(files.os, "open", open_new)

    return arm


@pytest.mark.parametrize("step", range(9))
def test_killed_at_any_write_of_a_round_the_store_holds_the_round_before_or_the_round_after(
    tmp_path: Path, killed_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A round ends with two writes: the model, then the state that names it. Four steps each."""
    store = FileRunStore(tmp_path)
    for number in range(2):
        store.save_model(a_model(number))
    store.save(a_state(1))

    killed_at(step)
    try:
        store.save_model(a_model(2))
        store.save(a_state(2))
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()

    again = FileRunStore(tmp_path)
    state = again.load()
    assert finished == (step >= 8)
    assert state in (a_state(1), a_state(2))
    assert state is not None
    assert all(again.load_model(digest) for digest in state.models), "a state that points at nothing"
    if finished:
        assert state == a_state(2)
    again.save_model(a_model(2))
    again.save(a_state(2))
    assert FileRunStore(tmp_path).load() == a_state(2)


def test_who_reads_while_a_state_is_replaced_reads_the_old_one_whole(tmp_path: Path) -> None:
    """The new state takes the old one's name; it is never written over it."""
    store = FileRunStore(tmp_path)
    store.save(a_state(1))

    with (tmp_path / "state.json").open("rb") as reader:
        store.save(a_state(2))
        assert reader.read() == a_state(1).canonical()


def test_a_file_left_over_by_a_killed_writer_is_not_taken_for_the_state(tmp_path: Path) -> None:
    store = FileRunStore(tmp_path)
    store.save(a_state(1))
    (tmp_path / ".state.json.0123456789abcdef").write_bytes(b'{"version":1,')

    assert FileRunStore(tmp_path).load() == a_state(1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_state_cut_short_is_refused_and_never_taken_for_an_earlier_one(tmp_path: Path, share: float) -> None:
    store = FileRunStore(tmp_path)
    store.save(a_state(2))
    data = (tmp_path / "state.json").read_bytes()
    (tmp_path / "state.json").write_bytes(data[: int(len(data) * share)])

    with pytest.raises(RunFolderError, match=r"state\.json is damaged"):
        store.load()


DAMAGED = {
    "no JSON": b"\x00" * 100,
    "a list": b"[]",
    "an empty object": b"{}",
    "a field that no state has": b'{"version":3,"job_digest":"%s","models":[],"extra":1}' % JOB.encode(),
    "an earlier version": b'{"version":1,"job_digest":"%s","models":[]}' % JOB.encode(),
    "a later version": b'{"version":4,"job_digest":"%s","models":[]}' % JOB.encode(),
    "a digest that is none": b'{"version":3,"job_digest":"../../etc","models":[]}',
    "an attempt below one": b'{"version":3,"job_digest":"%s","models":[],"attempt":0}' % JOB.encode(),
    "a model named by a path": b'{"version":3,"job_digest":"%s","models":["../../etc/passwd"]}' % JOB.encode(),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_state_is_refused_with_what_to_do(tmp_path: Path, data: bytes) -> None:
    FileRunStore(tmp_path)
    (tmp_path / "state.json").write_bytes(data)

    with pytest.raises(RunFolderError, match="start a new run"):
        FileRunStore(tmp_path).load()


@pytest.mark.parametrize("position", [0, 8, 40, -1])
def test_a_model_of_which_a_bit_flipped_is_refused(tmp_path: Path, position: int) -> None:
    store = FileRunStore(tmp_path)
    digest = store.save_model(a_model(1))
    path = tmp_path / "models" / f"{digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))

    with pytest.raises(RunFolderError, match="missing or damaged"):
        store.load_model(digest)
