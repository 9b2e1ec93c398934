"""The newest ledger head of each site outlives runs, and is never exchanged for an older one."""

from __future__ import annotations

from pathlib import Path

import pytest

from aegis.errors import LedgerForked, RunFolderError
from aegis.stores.heads import FileHeadStore
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import Reason
from coreason_enclave.ledger import LedgerHead
from coreason_enclave.ledger.signed_heads import seal_head

KEY = Signer.generate()


def head(seq: int, mark: str = "ab") -> str:
    return seal_head(LedgerHead(seq=seq, hash=mark * 32), "site-1", KEY)


def test_of_a_site_that_never_sent_one_there_is_none(tmp_path: Path) -> None:
    assert FileHeadStore(tmp_path / "heads").get("site-1") is None


def test_the_newest_head_is_there_for_whoever_comes_next(tmp_path: Path) -> None:
    assert FileHeadStore(tmp_path).put("site-1", head(3))
    assert FileHeadStore(tmp_path).put("site-1", head(7))
    assert FileHeadStore(tmp_path).put("site-2", head(1))
    assert FileHeadStore(tmp_path).get("site-1") == head(7)
    assert FileHeadStore(tmp_path).get("site-2") == head(1)


def test_an_older_head_is_not_kept_and_said_to_be_older(tmp_path: Path) -> None:
    store = FileHeadStore(tmp_path)
    store.put("site-1", head(7))
    assert not store.put("site-1", head(6))
    assert store.get("site-1") == head(7)


def test_the_same_head_again_changes_nothing(tmp_path: Path) -> None:
    store = FileHeadStore(tmp_path)
    store.put("site-1", head(7))
    before = (tmp_path / "site-1.json").stat().st_mtime_ns
    assert store.put("site-1", head(7))
    assert (tmp_path / "site-1.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", head(7).encode()[:-9]])
def test_a_damaged_head_is_refused_and_not_forgotten(tmp_path: Path, damage: bytes) -> None:
    store = FileHeadStore(tmp_path)
    store.put("site-1", head(7))
    (tmp_path / "site-1.json").write_bytes(damage)
    for act in (lambda: store.get("site-1"), lambda: store.put("site-1", head(8))):
        with pytest.raises(RunFolderError, match=r"site-1\.json is damaged .*restore it from a backup"):
            act()


def test_a_head_with_the_kept_number_and_another_hash_is_refused_as_a_fork_and_the_kept_one_stays(
    tmp_path: Path,
) -> None:
    store = FileHeadStore(tmp_path)
    store.put("site-1", head(7, "ab"))

    for act in (store.put, store.require_no_fork):
        with pytest.raises(LedgerForked, match="site-1 signed two different entries 7") as refused:
            act("site-1", head(7, "cd"))
        assert refused.value.reason is Reason.LEDGER_FORKED
    assert FileHeadStore(tmp_path).get("site-1") == head(7, "ab")
    assert store.put("site-1", head(8, "cd"))
    store.put("site-2", head(8, "ab"))  # another site's history is another one
