"""The hash-chained log that both ends keep."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto import hash_log as hashlog
from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, seal
from coreason_enclave.crypto.hash_log import GENESIS, HashLog, LogCorrupted, LogHead, verify_lines
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.wire.checkpoints import CHECKPOINT_TYPE, sign_log, verify_checkpoint

SIGNER = Signer.from_seed(bytes(32))
KEYS = KeyRing({"coordinator": SIGNER.public_hex})


def written(path: Path, count: int) -> bytes:
    log = HashLog(path, clock=lambda: 1_800_000_000.0)
    for number in range(count):
        log.append(actor="site-1", action="round", outcome="sealed", details={"round": number, "name": "Zoë"})
    log.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def four_lines(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("log") / "audit.jsonl", 4)


def test_every_line_names_the_digest_of_the_line_before_it(four_lines: bytes) -> None:
    lines = four_lines.splitlines()

    assert [json.loads(line)["prev"] for line in lines] == [GENESIS, *map(sha256_hex, lines[:-1])]
    assert [json.loads(line)["seq"] for line in lines] == [0, 1, 2, 3]
    assert verify_lines(four_lines) == LogHead(4, sha256_hex(lines[-1]))


def test_an_empty_log_is_the_beginning_of_every_log() -> None:
    assert verify_lines(b"") == LogHead(0, GENESIS)


def test_what_append_returned_is_on_disk_and_goes_on_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = HashLog(path)
    head = log.append(actor="a", action="b", outcome="c")
    assert verify_lines(path.read_bytes()) == head
    log.close()

    again = HashLog(path)
    assert again.head == head
    assert again.append(actor="a", action="b", outcome="d", reason="policy") == verify_lines(path.read_bytes())
    again.close()


@given(position=st.integers(0, 100_000), bit=st.integers(0, 7))
def test_a_bit_flipped_anywhere_but_in_the_last_line_breaks_the_chain(
    four_lines: bytes, position: int, bit: int
) -> None:
    data, last = bytearray(four_lines), four_lines.rstrip(b"\n").rfind(b"\n") + 1
    data[position % last] ^= 1 << bit

    with pytest.raises(LogCorrupted):
        verify_lines(bytes(data))


@given(position=st.integers(0, 100_000), bit=st.integers(0, 7))
def test_a_bit_flipped_anywhere_breaks_the_checkpoint(
    four_lines: bytes, checkpoint_of: Callable[[bytes], bytes], position: int, bit: int
) -> None:
    data = bytearray(four_lines)
    data[position % len(data)] ^= 1 << bit

    def verify() -> None:
        verify_lines(bytes(data))
        verify_checkpoint(bytes(data), checkpoint_of(four_lines), KEYS)

    with pytest.raises(LogCorrupted):
        verify()


@given(order=st.permutations(range(4)), keep=st.integers(1, 4))
def test_lines_left_out_doubled_or_put_in_another_order_break_the_chain(
    four_lines: bytes, order: list[int], keep: int
) -> None:
    lines = four_lines.splitlines(keepends=True)
    chosen = order[:keep]

    if chosen == list(range(keep)):
        assert verify_lines(b"".join(lines[:keep])).size == keep
    else:
        with pytest.raises(LogCorrupted, match="does not continue the chain"):
            verify_lines(b"".join(lines[index] for index in chosen))


@given(cut=st.integers(1, 3))
def test_an_end_that_was_cut_off_shows_against_a_checkpoint_alone(
    four_lines: bytes, checkpoint_of: Callable[[bytes], bytes], cut: int
) -> None:
    shorter = b"".join(four_lines.splitlines(keepends=True)[:-cut])

    assert verify_lines(shorter).size == 4 - cut
    with pytest.raises(LogCorrupted, match="lines were removed"):
        verify_checkpoint(shorter, checkpoint_of(four_lines), KEYS)


def test_a_rewritten_log_shows_against_a_checkpoint_of_the_old_one(
    four_lines: bytes, checkpoint_of: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    log = HashLog(tmp_path / "other.jsonl")
    for _ in range(5):
        log.append(actor="somebody", action="else", outcome="told")
    log.close()
    other = (tmp_path / "other.jsonl").read_bytes()

    assert verify_lines(other).size == 5
    with pytest.raises(LogCorrupted, match="rewritten"):
        verify_checkpoint(other, checkpoint_of(four_lines), KEYS)


def test_lines_after_a_checkpoint_are_not_its_business(
    four_lines: bytes, checkpoint_of: Callable[[bytes], bytes]
) -> None:
    first_two = b"".join(four_lines.splitlines(keepends=True)[:2])

    assert verify_checkpoint(four_lines, checkpoint_of(first_two), KEYS) == verify_lines(first_two)


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        path = tmp_path_factory.mktemp("signed") / "audit.jsonl"
        path.write_bytes(data)
        log = HashLog(path)
        checkpoint = sign_log(log, SIGNER, "aegis/test")
        log.close()
        return checkpoint

    return sign


FORGED = {
    "a stranger's signature": (Signer.generate(), {"size": 4, "head": "00" * 32}),
    "a size below nothing": (SIGNER, {"size": -1, "head": GENESIS}),
    "a size that is no number": (SIGNER, {"size": "4", "head": GENESIS}),
    "a size of True": (SIGNER, {"size": True, "head": GENESIS}),
    "no head": (SIGNER, {"size": 4}),
    "a head that is not this log's": (SIGNER, {"size": 4, "head": "00" * 32}),
    "some line as the head of no line": (SIGNER, {"size": 0, "head": "11" * 32}),
}


@pytest.mark.parametrize(("signer", "content"), FORGED.values(), ids=FORGED)
def test_a_checkpoint_with_a_flaw_confirms_nothing(
    four_lines: bytes, signer: Signer, content: dict[str, object]
) -> None:
    with pytest.raises((LogCorrupted, EnvelopeError)):
        verify_checkpoint(four_lines, seal(CHECKPOINT_TYPE, canonical_json(content), signer), KEYS)


@given(cut=st.integers(1, 10_000))
def test_a_line_torn_by_a_crash_is_cut_off_and_the_cut_is_recorded(
    four_lines: bytes, tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "audit.jsonl"
    whole_lines = four_lines.splitlines(keepends=True)
    torn = four_lines[: len(four_lines) - 1 - cut % (len(whole_lines[-1]) - 1)]
    path.write_bytes(torn)
    lost = len(torn) - len(b"".join(whole_lines[:3]))

    HashLog(path).close()

    after = path.read_bytes()
    assert after.startswith(b"".join(whole_lines[:3]))
    entry = json.loads(after.splitlines()[3])
    assert (entry["actor"], entry["action"], entry["details"]) == ("log", "recovered", {"bytes_cut": lost})
    assert verify_lines(after).size == 4


def test_a_torn_first_line_leaves_a_log_that_begins_with_the_recovery(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"seq":0')

    HashLog(path).close()

    assert verify_lines(path.read_bytes()).size == 1


def test_a_verifier_does_not_repair_what_it_reads(four_lines: bytes) -> None:
    with pytest.raises(LogCorrupted, match="incomplete"):
        verify_lines(four_lines[:-1])


BROKEN = {
    "a line that is no JSON": b"not json\n",
    "a line that is no object": b"[]\n",
    "an empty line": b"\n",
    "a first line that continues something": canonical_json({"seq": 0, "prev": "11" * 32}) + b"\n",
    "a first line that is not the first": canonical_json({"seq": 1, "prev": GENESIS}) + b"\n",
    "a number that is true in Python alone": b'{"seq":false,"prev":"' + GENESIS.encode() + b'"}\n',
    "a number with a fraction": b'{"seq":0.0,"prev":"' + GENESIS.encode() + b'"}\n',
    "NaN": b'{"seq":0,"prev":"' + GENESIS.encode() + b'","time":NaN}\n',
    "one key twice": b'{"seq":0,"seq":0,"prev":"' + GENESIS.encode() + b'"}\n',
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_log_that_does_not_verify_is_neither_opened_nor_changed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(data)

    with pytest.raises(LogCorrupted):
        HashLog(path)

    assert path.read_bytes() == data


def test_a_refused_log_is_free_for_whoever_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"[]\n")
    with pytest.raises(LogCorrupted) as refused:
        HashLog(path)
    path.write_bytes(b"")

    log = HashLog(path)
    assert log.append(actor="a", action="b", outcome="c").size == 1
    log.close()
    assert refused.value.reason.value == "ledger_corrupted"


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    first = HashLog(tmp_path / "audit.jsonl")

    with pytest.raises(LogCorrupted, match="being written by another process"):
        HashLog(tmp_path / "audit.jsonl")

    first.close()
    HashLog(tmp_path / "audit.jsonl").close()


def try_to_open(path: str, answer: multiprocessing.SimpleQueue[str]) -> None:
    try:
        HashLog(Path(path)).close()
        answer.put("opened")
    except LogCorrupted:
        answer.put("refused")


def test_a_second_writing_process_is_refused(tmp_path: Path) -> None:
    path, context = tmp_path / "audit.jsonl", multiprocessing.get_context("spawn")
    first, answer = HashLog(path), context.SimpleQueue()
    process = context.Process(target=try_to_open, args=(str(path), answer))
    process.start()
    process.join()

    assert answer.get() == "refused"
    first.close()


def test_after_a_write_that_failed_nothing_is_written_until_the_log_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next line would be appended to the torn one, and both would be lost to a verifier."""
    path = tmp_path / "audit.jsonl"
    log = HashLog(path)
    log.append(actor="a", action="b", outcome="c")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(hashlog.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.append(actor="a", action="b", outcome="lost?")
    with pytest.raises(LogCorrupted, match="reopen the log"):
        log.append(actor="a", action="b", outcome="later")
    log.close()

    again = HashLog(path)
    assert again.append(actor="a", action="b", outcome="d") == verify_lines(path.read_bytes())
    again.close()


UNSERIALISABLE = {"NaN": float("nan"), "bytes": b"x", "a set": {1}}


@pytest.mark.parametrize("value", UNSERIALISABLE.values(), ids=UNSERIALISABLE)
def test_what_is_not_json_is_refused_and_nothing_is_written(tmp_path: Path, value: object) -> None:
    log = HashLog(tmp_path / "audit.jsonl")

    with pytest.raises((TypeError, ValueError), match="JSON"):
        log.append(actor="a", action="b", outcome="c", details={"value": value})

    assert log.append(actor="a", action="b", outcome="c").size == 1
    log.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    HashLog(tmp_path / "audit.jsonl").close()

    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o077 == 0
