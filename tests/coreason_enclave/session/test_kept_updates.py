"""Asked again for a round that it released, a site seals the kept bytes anew: no training, no entry, no row read."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import ConfigurationError, EnclaveError, JobRejected, LedgerConflict, Reason
from coreason_enclave.session.update_store import KEPT_JOBS, StoredUpdate, UpdateStore
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.updates import SealedMessage

Federation = Any


class NeverTrains:
    """A trainer that must not be asked."""

    def train(self, task: Any) -> Any:
        raise AssertionError("a round that was released is not trained again")


def answer(site: Any, federation: Federation, order: SealedMessage, **options: Any) -> SealedMessage:
    opened = site.open(clock=federation.clock, **options)
    try:
        sealed: SealedMessage = opened.session.run(order)
        return sealed
    finally:
        opened.close()


def statement_of(site: Any, sealed: SealedMessage) -> UpdateStatement:
    keys = KeyRing({site.config.site_id: site.public_key})
    return UpdateStatement.from_payload(open_envelope(sealed.envelope, UPDATE_TYPE, keys).payload)


def kept_files(site: Any) -> list[Path]:
    return sorted(path for path in (site.folder / "released").rglob("*") if path.is_file())


def test_a_repeated_order_is_answered_from_the_store(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    first = answer(site, federation, federation.order(job))
    entries = site.ledger_entries()
    (site.folder / "data/clinic/visits/rows.csv").unlink()
    quarantined_until = federation.order(job, nonce="ef" * 32, issued_at=federation.now + 5)
    again = answer(site, federation, quarantined_until, trainer=NeverTrains())
    assert again.arrays == first.arrays
    assert site.ledger_entries() == entries
    assert (site.log()[-1]["action"], site.log()[-1]["outcome"]) == ("round", "answered from store")
    said, says = statement_of(site, first), statement_of(site, again)
    assert says.nonce == "ef" * 32
    assert says.evidence != said.evidence  # bound to the new nonce
    fresh = {"nonce", "evidence"}
    assert says.model_dump(exclude=fresh) == said.model_dump(exclude=fresh)


def test_the_order_of_an_older_round_that_was_answered_is_answered_again(federation: Federation) -> None:
    """A coordinator that went on from an older state asks again; the round it asks for was paid for."""
    site, job = federation.create(), federation.job()
    first = answer(site, federation, federation.order(job))
    answer(site, federation, federation.order(job, federation.weights(0.1), round_number=2))
    entries = site.ledger_entries()
    assert answer(site, federation, federation.order(job), trainer=NeverTrains()).arrays == first.arrays
    assert site.ledger_entries() == entries


def test_an_older_round_that_this_site_missed_is_answered_once_and_charged(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    answer(site, federation, federation.order(job, federation.weights(0.1), round_number=3))
    later = federation.shown(job, 4)  # the log has grown since, whichever round it asks for
    assert answer(site, federation, federation.order(job, round_number=2, **later)).arrays
    with pytest.raises(LedgerConflict, match="reserved for another computation"):
        answer(site, federation, federation.order(job, federation.weights(0.2), round_number=2, **later))


def test_an_older_round_with_a_log_that_is_shorter_than_the_one_seen_is_refused_and_costs_nothing(
    federation: Federation,
) -> None:
    site, job = federation.create(), federation.job()
    answer(site, federation, federation.order(job, federation.weights(0.1), round_number=3))
    entries = site.ledger_entries()
    with pytest.raises(JobRejected, match="do not continue") as refused:
        answer(site, federation, federation.order(job, round_number=2))
    assert refused.value.reason is Reason.LOG_FORKED
    assert site.ledger_entries() == entries


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    ],
    ids=["missing", "empty", "cut", "changed at its end", "changed at its start"],
)
def test_a_damaged_or_missing_file_means_the_round_is_recomputed_to_the_same_bytes(
    spoil: Callable[[Path], Any], federation: Federation
) -> None:
    site, order = federation.create(), federation.order(federation.job())
    first = answer(site, federation, order)
    (path,) = kept_files(site)
    whole = path.read_bytes()
    spoil(path)
    entries = site.ledger_entries()
    assert answer(site, federation, order).arrays == first.arrays
    assert site.log()[-1]["outcome"] == "sealed"
    assert site.ledger_entries() == entries
    assert path.read_bytes() == whole


def test_bytes_that_the_ledger_did_not_commit_are_never_sealed(federation: Federation) -> None:
    site, order = federation.create(), federation.order(federation.job())
    first = answer(site, federation, order)
    (path,) = kept_files(site)
    binding = path.stem.split("-")[1]
    UpdateStore(site.folder / "released").keep(path.parent.name, 1, binding, StoredUpdate(b"something else", {}))
    assert answer(site, federation, order).arrays == first.arrays
    assert site.log()[-1]["outcome"] == "sealed"


def test_only_the_last_two_rounds_of_a_job_are_kept(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    for number in range(1, 5):
        answer(site, federation, federation.order(job, round_number=number))
    assert [path.name[:6] for path in kept_files(site)] == ["000003", "000004"]


def test_files_are_private_to_the_site(federation: Federation) -> None:
    site = federation.create()
    answer(site, federation, federation.order(federation.job()))
    (path,) = kept_files(site)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, site.folder / "released")} == {0o700}


def test_without_a_store_nothing_is_released_and_the_round_stays_open(federation: Federation) -> None:
    site = federation.create()
    (site.folder / "released").write_text("a file where the folder should be")
    with pytest.raises(ConfigurationError, match="released updates cannot be stored"):
        answer(site, federation, federation.order(federation.job()))
    assert [entry["type"] for entry in site.ledger_entries()][-1] == "content_noted"


# --- the store by itself --------------------------------------------------------------------------------------

JOB = "ab" * 32
BINDING = "cd" * 32
PAYLOAD = StoredUpdate(b"payload", {"steps": 4.0})
DIGEST = "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5"


def test_what_is_kept_is_found_under_its_binding_and_digest_alone(tmp_path: Path) -> None:
    store = UpdateStore(tmp_path / "released")
    assert store.find(JOB, 1, BINDING, DIGEST) is None
    store.keep(JOB, 1, BINDING, PAYLOAD)
    assert store.find(JOB, 1, BINDING, DIGEST) == PAYLOAD
    assert store.find(JOB, 1, BINDING, "00" * 32) is None
    assert store.find(JOB, 1, "00" * 32, DIGEST) is None
    assert store.find(JOB, 2, BINDING, DIGEST) is None


def test_a_file_under_another_rounds_name_is_not_found(tmp_path: Path) -> None:
    store = UpdateStore(tmp_path / "released")
    store.keep(JOB, 1, BINDING, PAYLOAD)
    (path,) = (tmp_path / "released" / JOB).iterdir()
    path.rename(path.with_name(f"000001-{'00' * 32}.update"))
    assert store.find(JOB, 1, "00" * 32, DIGEST) is None


def test_what_a_killed_writer_left_behind_is_cleared_away(tmp_path: Path) -> None:
    store = UpdateStore(tmp_path / "released")
    store.keep(JOB, 1, BINDING, PAYLOAD)
    (tmp_path / "released" / JOB / ".0123456789abcdef").write_bytes(b"half")
    store.keep(JOB, 2, BINDING, PAYLOAD)
    assert len(list((tmp_path / "released" / JOB).iterdir())) == 2


def test_the_number_of_jobs_is_bounded(tmp_path: Path) -> None:
    store = UpdateStore(tmp_path / "released")
    for number in range(KEPT_JOBS + 3):
        store.keep(f"{number:064x}", 1, BINDING, PAYLOAD)
    assert len(list((tmp_path / "released").iterdir())) == KEPT_JOBS
    assert store.find(f"{KEPT_JOBS + 2:064x}", 1, BINDING, DIGEST) == PAYLOAD


def test_an_unwritable_store_refuses(tmp_path: Path) -> None:
    (tmp_path / "released").write_text("no folder")
    with pytest.raises(EnclaveError):
        UpdateStore(tmp_path / "released").keep(JOB, 1, BINDING, PAYLOAD)
