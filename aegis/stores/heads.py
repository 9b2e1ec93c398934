"""Stores the newest ledger head that each site ever signed for this coordinator, over all runs and jobs.

The coordinator shows the head to the site in its next order, which reveals a ledger restored from an older copy. The
store keeps the site's own envelope; the coordinator can neither make nor alter one.
"""

from __future__ import annotations

from pathlib import Path

from aegis.errors import LedgerForked, RunFolderError
from coreason_enclave.crypto import unverified_payload
from coreason_enclave.errors import EnclaveError
from coreason_enclave.system import replace_file
from coreason_enclave.wire import LedgerHeadStatement, SiteLedgerHead


class FileHeadStore:
    """The signed ledger heads in a folder, with one file per site. A damaged file is refused, not forgotten."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, site_id: str) -> str | None:
        """Return the newest head's envelope, or None if the site never sent a head.

        Raises:
            RunFolderError: the file is damaged.
        """
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
        """Store a verified head unless a newer head (by number) is already stored; durable on return.

        Return False if a newer head is already stored, which means the site's ledger was rolled back.

        Raises:
            LedgerForked: see :meth:`require_no_fork`; the stored head stays.
        """
        self.require_no_fork(site_id, envelope)
        kept = self.get(site_id)
        if kept is not None and _head(kept).seq > _head(envelope).seq:
            return False
        if kept != envelope:
            replace_file(self._folder / f"{site_id}.json", envelope.encode())
        return True

    def require_no_fork(self, site_id: str, envelope: str) -> None:
        """Refuse a verified head with the number of the stored head but a different hash.

        Raises:
            LedgerForked: the site signed two different histories of its ledger.
        """
        kept = self.get(site_id)
        if kept is None:
            return
        known, stated = _head(kept), _head(envelope)
        if known.seq == stated.seq and known.hash != stated.hash:
            raise LedgerForked(
                f"{site_id} signed two different entries {known.seq} of its ledger ({known.hash[:16]}… and now "
                f"{stated.hash[:16]}…): two copies of one ledger are in use, and each lacks the privacy that the "
                "other spent. Ask the site which copy is right"
            )


def _head(envelope: str) -> LedgerHeadStatement:
    return SiteLedgerHead.from_payload(unverified_payload(envelope.encode())).head
