"""Endorsements from a folder that somebody filled beforehand: for hosts that reach no vendor's service.

The layout is that of :mod:`~coreason_enclave.attestation.endorsements.collateral`. A cache has the same one: the folder
of a host that may fetch, copied, is a bundle for one that may not. Collateral, lists and answers end after days to
weeks.
"""

from __future__ import annotations

from pathlib import Path

from coreason_enclave.attestation.endorsements.collateral import MAX_ITEM_BYTES, Item
from coreason_enclave.attestation.endorsements.sources import ItemwiseSource, missing
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

__all__ = ["OfflineBundle", "read_at_most"]


class OfflineBundle(ItemwiseSource):
    """Reads items below ``folder``."""

    called = "the bundle"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, item: Item, now: int) -> bytes:
        """See :meth:`ItemwiseSource.get`. What is out of date is given as it is: the verifier says so."""
        try:
            content = read_at_most(self._folder / item.name)
        except FileNotFoundError as error:
            raise missing(f"the bundle of endorsements has no {item.name}: fetch it and put it there") from error
        except OSError as error:
            raise missing(f"the bundle's {item.name} cannot be read: {error.strerror}") from error
        if len(content) > MAX_ITEM_BYTES:
            raise VerificationRefused(Refusal.OVERSIZED, f"the bundle's {item.name} is larger than {MAX_ITEM_BYTES}")
        return content


def read_at_most(path: Path, limit: int = MAX_ITEM_BYTES) -> bytes:
    """The file's content, or one byte more than ``limit`` where it is larger."""
    with path.open("rb") as file:
        return file.read(limit + 1)
