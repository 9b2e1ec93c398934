"""Endorsements from a folder filled beforehand, for hosts without access to vendors' services.

The layout matches :mod:`~coreason_enclave.attestation.endorsements.collateral` and the cache. A copy of an online
host's cache therefore serves as the bundle of an offline host. Collateral, lists and answers expire after days to
weeks.
"""

from __future__ import annotations

from pathlib import Path

from coreason_enclave.attestation.endorsements.collateral import MAX_ITEM_BYTES, Item
from coreason_enclave.attestation.endorsements.sources import ItemwiseSource, missing
from coreason_enclave.attestation.verify import Refusal, VerificationRefused


class OfflineBundle(ItemwiseSource):
    """A source that reads items below ``folder``."""

    called = "the bundle"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, item: Item, now: int) -> bytes:
        """See :meth:`ItemwiseSource.get`. Expired items are returned unchanged; the verifier rejects them."""
        try:
            content = read_at_most(self._folder / item.name)
        except FileNotFoundError as error:
            raise missing(f"the bundle of endorsements has no {item.name}: fetch the file into the bundle") from error
        except OSError as error:
            raise missing(f"the bundle's {item.name} cannot be read: {error.strerror}") from error
        if len(content) > MAX_ITEM_BYTES:
            raise VerificationRefused(Refusal.OVERSIZED, f"the bundle's {item.name} is larger than {MAX_ITEM_BYTES}")
        return content


def read_at_most(path: Path, limit: int = MAX_ITEM_BYTES) -> bytes:
    """Return the file's content, or the first ``limit`` + 1 bytes of a larger file."""
    with path.open("rb") as file:
        return file.read(limit + 1)
