"""What a site accepts of a coordinator's log, what it refuses, and that it keeps both before it answers."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import ConfigurationError, EnclaveError, EnvelopeError, JobRejected, Reason
from coreason_enclave.system import files
from coreason_enclave.wire.checkpoints import LogProof, LogSeen, open_checkpoint
from coreason_enclave.witness import CheckpointStore, ShownLog
from coreason_enclave.witness.store import KEPT_REFUSED
from tests.coreason_enclave.witness.logs import COORDINATOR, JOB, NOW, Owner, no_proof, seen_at


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path / "audit.jsonl").write(3)


def refusal(store: CheckpointStore, shown: ShownLog) -> Reason:
    with pytest.raises(EnclaveError) as refused:
        store.witness(shown, NOW)
    return refused.value.reason


def test_the_first_checkpoint_is_accepted_and_each_one_that_continues_it(store: CheckpointStore, owner: Owner) -> None:
    for number in range(1, 6):
        seen = store.witness(owner.show(seen_at(store), number), NOW)
        assert (seen.size, seen) == (owner.log.head.size, seen_at(store))
        owner.write(number)
    assert store.logs() == [store.log(COORDINATOR.public_hex, JOB)]
    assert store.logs()[0].refused == ()


def test_a_log_that_was_written_anew_is_refused_and_both_signed_checkpoints_are_kept(
    store: CheckpointStore, owner: Owner, tmp_path: Path
) -> None:
    held = store.witness(owner.show(None), NOW)
    for number, lines in enumerate((2, 3, 7)):  # shorter, equally long, longer: each with the best proof that it has
        forked = Owner(tmp_path / f"{lines}.jsonl", "rewritten").write(lines)
        assert refusal(store, forked.show(held, 2)) is Reason.LOG_FORKED
        assert seen_at(store) == held
        evidence = store.logs()[0].refused[number]
        pair = [open_checkpoint(text, COORDINATOR.public_hex) for text in (evidence.held, evidence.shown)]
        assert [each.size for each in pair] == [3, lines]
        assert pair[0].root == held.root != pair[1].root


def test_a_log_that_shares_its_beginning_and_parts_before_what_was_seen_is_refused(
    store: CheckpointStore, owner: Owner, tmp_path: Path
) -> None:
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "audit.jsonl").read_bytes())
    held = store.witness(owner.write(2).show(None), NOW)
    forked = Owner(tmp_path / "copy.jsonl", "rewritten").write(9)
    assert refusal(store, forked.show(held, 2)) is Reason.LOG_FORKED


def test_a_refusal_does_not_stick_to_the_honest_log(store: CheckpointStore, owner: Owner, tmp_path: Path) -> None:
    held = store.witness(owner.show(None), NOW)
    assert refusal(store, Owner(tmp_path / "other", "rewritten").write(9).show(held, 2)) is Reason.LOG_FORKED
    assert store.witness(owner.write().show(held, 2), NOW).size == 4


def test_a_proof_from_another_size_is_unproven_and_accuses_nobody(store: CheckpointStore, owner: Owner) -> None:
    store.witness(owner.show(None), NOW)
    earlier = LogSeen(size=2, root="00" * 32)
    assert refusal(store, owner.write().show(earlier, 2)) is Reason.LOG_UNPROVEN
    assert refusal(store, owner.show(None, 2)) is Reason.LOG_UNPROVEN
    assert store.logs()[0].refused == ()


def test_a_repeated_or_late_order_shows_again_what_was_accepted_and_a_later_round_may_not(
    store: CheckpointStore, owner: Owner
) -> None:
    first = owner.show(None, 1)
    held = store.witness(first, NOW)
    assert store.witness(first, NOW) == held
    second = owner.write(2).show(held, 2)
    newest = store.witness(second, NOW)
    assert store.witness(first, NOW) == newest == seen_at(store)  # late, and changes nothing
    later = ShownLog(**{**vars(second), "round_number": 3})
    assert refusal(store, later) is Reason.LOG_FORKED  # nothing was written since round 2? then round 3 was not opened


def test_a_checkpoint_of_one_root_and_another_head_is_another_checkpoint(store: CheckpointStore, owner: Owner) -> None:
    from coreason_enclave.crypto.envelope import seal
    from coreason_enclave.wire.checkpoints import CHECKPOINT_TYPE

    shown = owner.show(None, 1)
    store.witness(shown, NOW)
    other = open_checkpoint(shown.envelope, COORDINATOR.public_hex).model_copy(update={"head": "00" * 32})
    envelope = seal(CHECKPOINT_TYPE, other.canonical(), COORDINATOR).decode()
    assert refusal(store, ShownLog(**{**vars(shown), "envelope": envelope})) is Reason.LOG_FORKED


def test_checkpoints_of_another_key_job_or_kind_are_refused_and_nothing_is_kept(
    store: CheckpointStore, owner: Owner, tmp_path: Path
) -> None:
    stranger = Owner(tmp_path / "stranger", signer=Signer.generate()).write(3)
    assert refusal(store, stranger.show(None, coordinator_key=COORDINATOR.public_hex)) is Reason.UNKNOWN_SIGNER
    assert refusal(store, owner.show(None, job_digest="00" * 32)) is Reason.WRONG_DIGEST
    with pytest.raises(EnvelopeError):
        store.witness(owner.show(None, envelope="{}"), NOW)
    assert store.logs() == []


def test_each_job_and_each_coordinator_has_a_log_of_its_own(store: CheckpointStore, tmp_path: Path) -> None:
    other_job = Owner(tmp_path / "a", job="11" * 32).write(1)
    other_key = Owner(tmp_path / "b", signer=Signer.from_seed(bytes(32))).write(2)
    for each in (Owner(tmp_path / "c").write(3), other_job, other_key):
        store.witness(each.show(None), NOW)
    sizes = sorted(open_checkpoint(log.last, log.coordinator_key).size for log in store.logs())
    assert sizes == [1, 2, 3]


def test_a_lost_log_is_refused_until_a_person_acknowledges_it_and_the_lost_one_stays_on_record(
    store: CheckpointStore, tmp_path: Path
) -> None:
    before = Owner(tmp_path / "audit.jsonl").write(3)
    backup = (tmp_path / "audit.jsonl").read_bytes()
    held = store.witness(before.write(4).show(None), NOW)
    (tmp_path / "restored.jsonl").write_bytes(backup)
    restored = Owner(tmp_path / "restored.jsonl", "after the restore").write(2)
    shown = restored.show(held, 2)
    assert refusal(store, shown) is Reason.LOG_FORKED
    taken = LogSeen(size=5, root=open_checkpoint(shown.envelope, COORDINATOR.public_hex).root)
    about = (JOB, COORDINATOR.public_hex)
    with pytest.raises(ConfigurationError, match="refused no checkpoint"):
        store.acknowledge(*about, held, by="A. Ito", why="the disk", now=NOW)
    store.acknowledge(*about, taken, by="A. Ito", why="the disk broke", now=NOW)
    assert seen_at(store) == taken
    assert store.witness(shown, NOW) == taken  # the same order again
    assert store.witness(restored.write(6).show(taken, 3), NOW).size == 11
    assert refusal(store, before.write(9).show(held, 4)) in (Reason.LOG_FORKED, Reason.LOG_UNPROVEN)
    (given_up,) = store.logs()[0].abandoned
    assert open_checkpoint(given_up.held, COORDINATOR.public_hex).size == 7
    assert (given_up.by, given_up.why) == ("A. Ito", "the disk broke")


def test_a_coordinator_that_forks_again_and_again_fills_no_disk_and_its_latest_branch_can_be_acknowledged(
    store: CheckpointStore, owner: Owner, tmp_path: Path
) -> None:
    held = store.witness(owner.show(None), NOW)
    forked = Owner(tmp_path / "forked", "rewritten").write(3)
    for _ in range(KEPT_REFUSED + 5):
        latest = forked.write().show(held, 2)
        assert refusal(store, latest) is Reason.LOG_FORKED
        assert refusal(store, latest) is Reason.LOG_FORKED  # twice the same is kept once
    refused = store.logs()[0].refused
    assert len(refused) == KEPT_REFUSED
    assert refused[-1].shown == latest.envelope
    assert open_checkpoint(refused[0].shown, COORDINATOR.public_hex).size == 4


def test_what_was_decided_is_on_disk_before_the_answer(
    store: CheckpointStore, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full: nothing is answered, and nothing was accepted."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    held = store.witness(owner.show(None), NOW)
    forked = Owner(tmp_path / "forked", "rewritten").write(9).show(held, 2)
    following = owner.write().show(held, 2)
    with monkeypatch.context() as disk:
        disk.setattr(files.os, "fsync", full)
        for shown in (following, forked):
            with pytest.raises(ConfigurationError, match="No space left"):
                store.witness(shown, NOW)
    assert seen_at(store) == held
    assert store.logs()[0].refused == ()


def test_the_store_is_for_its_owner_alone(store: CheckpointStore, owner: Owner, tmp_path: Path) -> None:
    store.witness(owner.show(None), NOW)
    for path in (tmp_path / "checkpoints").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert (tmp_path / "checkpoints").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "another coordinator's", "forged"])
def test_a_damaged_store_refuses_instead_of_trusting_anew(
    store: CheckpointStore, owner: Owner, tmp_path: Path, damage: str
) -> None:
    held = store.witness(owner.show(None), NOW)
    (path,) = (tmp_path / "checkpoints").glob("*.json")
    if damage == "another coordinator's":
        path = path.rename(path.with_name(f"{'0' * 64}{path.name[64:]}"))
        with pytest.raises(ConfigurationError, match="another log than its file name"):
            store.logs()
        return
    document = json.loads(path.read_bytes())
    if damage == "forged":
        stranger = Owner(tmp_path / "x", signer=Signer.generate()).write(1).show(None)
        document["log"]["last"] = stranger.envelope
    data = {"cut": path.read_bytes()[:-9], "empty": b"", "forged": json.dumps(document).encode()}[damage]
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="damaged"):
        store.witness(owner.write().show(held, 2), NOW)
    assert path.read_bytes() == data


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["main", "fork"]), st.integers(1, 4), st.booleans()), max_size=8),
    parted=st.integers(0, 3),
)
def test_a_site_never_accepts_two_logs_neither_of_which_begins_the_other(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]], parted: int
) -> None:
    """Whatever is shown in whatever order, with whatever proof: the accepted checkpoints lie on one branch."""
    root = tmp_path_factory.mktemp("branches")
    store, branches = CheckpointStore(root / "checkpoints"), {}
    for name in ("main", "fork"):
        branches[name] = Owner(root / name, "shared").write(parted)
        branches[name].branch = name
    accepted = set()
    for number, (name, lines, proven) in enumerate(steps, start=1):
        shown = branches[name].write(lines).show(seen_at(store), number)
        try:
            store.witness(shown if proven else ShownLog(**{**vars(shown), "proof": no_proof()}), NOW)
        except JobRejected:
            continue
        accepted.add(name)
    assert len(accepted) <= 1


def test_a_proof_may_have_no_more_hashes_than_a_tree_has_levels() -> None:
    assert LogProof(since=1, hashes=("00" * 32,) * 128)
    with pytest.raises(ValueError, match="at most 128"):
        LogProof(since=1, hashes=("00" * 32,) * 129)
