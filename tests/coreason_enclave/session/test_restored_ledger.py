"""A ledger restored from an older copy is revealed by the head that the site itself signed later."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import EnvelopeError, LedgerError, Reason
from coreason_enclave.ledger import LedgerHead
from coreason_enclave.ledger.signed_heads import open_head, seal_head
from coreason_enclave.main import main
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.updates import SealedMessage

Federation = Any


def answer(site: Any, federation: Federation, order: SealedMessage) -> SealedMessage:
    opened = site.open(clock=federation.clock)
    try:
        sealed: SealedMessage = opened.session.run(order)
        return sealed
    finally:
        opened.close()


def signed_head(site: Any, sealed: SealedMessage) -> str:
    keys = KeyRing({"clinic-1": site.public_key})
    return UpdateStatement.from_payload(open_envelope(sealed.envelope, UPDATE_TYPE, keys).payload).signed_head


@pytest.fixture
def site(federation: Federation) -> Any:
    return federation.create()


@pytest.fixture
def restored(site: Any, federation: Federation, tmp_path: Path) -> str:
    """The head that the site signed after round 2, and a ledger that is again the one of round 1."""
    answer(site, federation, federation.order(federation.job()))
    backup = shutil.copyfile(site.folder / "ledger.sqlite", tmp_path / "ledger.backup")
    head = signed_head(site, answer(site, federation, federation.order(federation.job(), round_number=2)))
    for extra in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (site.folder / extra).unlink(missing_ok=True)
    shutil.copyfile(backup, site.folder / "ledger.sqlite")
    return head


def test_the_head_in_a_statement_is_the_ledgers_and_stands_on_its_own(site: Any, federation: Federation) -> None:
    sealed = answer(site, federation, federation.order(federation.job()))
    opened = site.open()
    head = open_head(signed_head(site, sealed), "clinic-1", site.public_key)
    assert head == opened.ledger.head()
    opened.close()


def test_a_head_that_was_signed_for_another_sites_name_is_not_the_sites_own() -> None:
    signer = Signer.from_seed(bytes([5]) * 32)
    head = LedgerHead(seq=3, hash="ab" * 32)
    assert open_head(seal_head(head, "clinic-1", signer), "clinic-1", signer.public_hex) == head
    with pytest.raises(EnvelopeError, match="of another site: clinic-2"):
        open_head(seal_head(head, "clinic-2", signer), "clinic-1", signer.public_hex)


def test_a_head_that_the_ledger_knows_changes_nothing(site: Any, federation: Federation) -> None:
    first = signed_head(site, answer(site, federation, federation.order(federation.job())))
    for number in (2, 3):  # the newest head, and then an older one
        assert answer(site, federation, federation.order(federation.job(), round_number=number, last_head=first))


def test_a_restored_ledger_is_refused_before_anything_is_reserved(
    restored: str, site: Any, federation: Federation
) -> None:
    before = site.ledger_entries()
    with pytest.raises(LedgerError) as refused:
        answer(site, federation, federation.order(federation.job(), round_number=3, last_head=restored))
    assert refused.value.reason is Reason.LEDGER_ROLLED_BACK
    assert site.ledger_entries() == before
    assert site.log()[-1]["reason"] == "ledger_rolled_back"


def test_the_log_tells_a_person_the_exact_command_after_which_the_site_answers_again(
    restored: str, site: Any, federation: Federation
) -> None:
    order = federation.order(federation.job(), round_number=3, last_head=restored)
    with pytest.raises(LedgerError):
        answer(site, federation, order)
    told = re.search(
        r"coreason-enclave (ledger acknowledge .* --by NAME --why TEXT)", site.log()[-1]["details"]["message"]
    )
    assert told is not None
    command = told[1].replace("NAME", "'A. Ito'").replace("TEXT", "'restored from the backup of Monday'")
    result = CliRunner().invoke(main, shlex.split(command))
    assert result.exit_code == 0, result.output
    sealed = answer(site, federation, order)
    acknowledged = [entry for entry in site.ledger_entries() if entry["type"] == "acknowledged"]
    assert [(entry["by"], entry["why"]) for entry in acknowledged] == [("A. Ito", "restored from the backup of Monday")]
    newest = signed_head(site, sealed)
    assert answer(site, federation, federation.order(federation.job(), round_number=4, last_head=newest))


def test_acknowledging_another_head_does_not_help(restored: str, site: Any, federation: Federation) -> None:
    opened = site.open()
    opened.ledger.acknowledge(LedgerHead(seq=99, hash="ab" * 32), "A. Ito", "a mistyped head")
    opened.close()
    with pytest.raises(LedgerError, match="replaced or rolled back"):
        answer(site, federation, federation.order(federation.job(), round_number=3, last_head=restored))


def test_the_round_that_was_forgotten_is_recomputed_to_the_bytes_that_left_before(
    site: Any, federation: Federation, tmp_path: Path
) -> None:
    """The key of the job lies beside the ledger: the second release is the first one again."""
    backup = shutil.copyfile(site.folder / "ledger.sqlite", tmp_path / "ledger.backup")
    order = federation.order(federation.job())
    before = answer(site, federation, order).arrays
    for extra in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (site.folder / extra).unlink(missing_ok=True)
    shutil.copyfile(backup, site.folder / "ledger.sqlite")
    assert answer(site, federation, order).arrays == before
