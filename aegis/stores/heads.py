"""The newest ledger head that each site ever signed for this coordinator, over all runs and jobs.

Shown back to the site in its next order, it reveals a ledger that was restored from an older copy. What is kept is the
site's own envelope; this side can neither make nor alter one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from aegis.errors import LedgerForked, RunFolderError
from coreason_enclave.crypto.envelope import unverified_payload
from coreason_enclave.errors import EnclaveError
from coreason_enclave.system.files import replace_file
from coreason_enclave.wire.documents import LedgerHeadStatement, parse_head

__all__ = ["FileHeadStore", "HeadStore"]


class HeadStore(Protocol):
    """Signed ledger heads by site."""

    def get(self, site_id: str) -> str | None:
        """The newest head's envelope; None where this site never sent one."""
        ...

    def put(self, site_id: str, envelope: str) -> bool:
        """Keep a verified head, unless a newer one (by its number) is kept; durable when this returns.

        Returns False if a newer head is kept: the site's ledger was set back.

        Raises:
            LedgerForked: see :meth:`require_no_fork`; what is kept stays.
        """
        ...

    def require_no_fork(self, site_id: str, envelope: str) -> None:
        """Refuse a verified head that has the number of the kept head, and another hash.

        Raises:
            LedgerForked: the site signed two different histories of its ledger.
        """
        ...


class FileHeadStore:
    """:class:`HeadStore` in a folder, one file a site. A damaged one is refused, not forgotten."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, site_id: str) -> str | None:
        """See :class:`HeadStore`; raises :class:`RunFolderError` if the file is damaged."""
        path = self._folder / f"{site_id}.json"
        if not path.exists():
            return None
        envelope = path.read_text(encoding="utf-8", errors="replace")
        try:
            _head(envelope)
        except EnclaveError as error:
            raise RunFolderError(f"{path} is damaged ({error}): restore it from a backup") from error
        return envelope

    def put(self, site_id: str, envelope: str) -> bool:
        """See :class:`HeadStore`."""
        self.require_no_fork(site_id, envelope)
        kept = self.get(site_id)
        if kept is not None and _head(kept).seq > _head(envelope).seq:
            return False
        if kept != envelope:
            replace_file(self._folder / f"{site_id}.json", envelope.encode())
        return True

    def require_no_fork(self, site_id: str, envelope: str) -> None:
        """See :class:`HeadStore`."""
        kept = self.get(site_id)
        if kept is None:
            return
        known, shown = _head(kept), _head(envelope)
        if known.seq == shown.seq and known.hash != shown.hash:
            raise LedgerForked(
                f"{site_id} signed two different entries {known.seq} of its ledger ({known.hash[:16]}… and now "
                f"{shown.hash[:16]}…): two copies of one ledger are in use, and each lacks what the other spent. "
                "Ask the site which one is true"
            )


def _head(envelope: str) -> LedgerHeadStatement:
    return parse_head(unverified_payload(envelope.encode())).head
