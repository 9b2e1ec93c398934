"""The newest ledger head that each site ever signed for this coordinator, over all runs and jobs.

Shown back to the site in its next order, it reveals a ledger that was restored from an older copy. What is kept is the
site's own envelope; this side can neither make nor alter one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from aegis.errors import RunFolderError
from coreason_enclave.envelope import unverified_payload
from coreason_enclave.errors import EnclaveError
from coreason_enclave.files import replace_file
from coreason_enclave.orders import parse_head

__all__ = ["FileHeadStore", "HeadStore"]


class HeadStore(Protocol):
    """Signed ledger heads by site."""

    def get(self, site_id: str) -> str | None:
        """The newest head's envelope; None where this site never sent one."""
        ...

    def put(self, site_id: str, envelope: str) -> bool:
        """Keep a verified head, unless a newer one (by its number) is kept; durable when this returns.

        Returns whether it was the newest. One that was not is that of a ledger which was set back.
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
            _number(envelope)
        except EnclaveError as error:
            raise RunFolderError(f"{path} is damaged ({error}): restore it from a backup") from error
        return envelope

    def put(self, site_id: str, envelope: str) -> bool:
        """See :class:`HeadStore`."""
        kept = self.get(site_id)
        if kept is not None and _number(kept) > _number(envelope):
            return False
        if kept != envelope:
            replace_file(self._folder / f"{site_id}.json", envelope.encode())
        return True


def _number(envelope: str) -> int:
    return parse_head(unverified_payload(envelope.encode())).head.seq
