"""Disk cache of fetched endorsements: a host asks a vendor's service once a day rather than every time.

The cache keeps an item only if the item is readable, matches the request and is valid now. A damaged, old or invalid
entry counts as absent. Caching adds no trust: the verifier checks every signature each time.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from coreason_enclave.attestation.endorsements.collateral import MAX_ITEM_BYTES, Item
from coreason_enclave.attestation.endorsements.file_bundle import read_at_most
from coreason_enclave.attestation.endorsements.sources import ItemwiseSource
from coreason_enclave.attestation.verify import VerificationRefused
from coreason_enclave.crypto import parse_json, sha256_hex
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import FormatVersion, HexDigest, StrictModel, UnixSeconds
from coreason_enclave.system import replace_file

DEFAULT_MAX_AGE_S = 86_400
"""Maximum age of an entry, in seconds.

A revocation takes effect within a day, whatever end date the fetched list states.
"""

_SUFFIX = ".stored.json"
_log = logging.getLogger(__name__)


class _Stored(StrictModel):
    """Note stored with each item: time of the fetch, and digest of the content."""

    version: FormatVersion = 1
    stored_at: UnixSeconds
    sha256: HexDigest


class CachedEndorsements(ItemwiseSource):
    """A cache in ``folder`` that asks ``inner`` for missing items.

    Args:
        max_age_s: Maximum age of an entry, in seconds; the item itself must also be valid.
    """

    called = "the vendor's service"

    def __init__(self, inner: ItemwiseSource, folder: Path, *, max_age_s: int = DEFAULT_MAX_AGE_S) -> None:
        self._inner = inner
        self._folder = folder
        self._max_age_s = max_age_s

    def get(self, item: Item, now: int) -> bytes:
        """See :meth:`ItemwiseSource.get`."""
        kept = self._kept(item, now)
        if kept is not None:
            return kept
        content = self._inner.get(item, now)
        if item.is_current(content, now):
            self._keep(item, content, now)
        return content

    def _kept(self, item: Item, now: int) -> bytes | None:
        path = self._folder / item.name
        try:
            note = _Stored.model_validate(parse_json(read_at_most(_note_of(path))))
            content = read_at_most(path)
            fresh = 0 <= now - note.stored_at < self._max_age_s and len(content) <= MAX_ITEM_BYTES
            return content if fresh and sha256_hex(content) == note.sha256 and item.is_current(content, now) else None
        except (OSError, EnvelopeError, ValidationError, VerificationRefused):
            return None

    def _keep(self, item: Item, content: bytes, now: int) -> None:
        """Store the item. A failed write costs time, not the attestation."""
        path = self._folder / item.name
        note = _Stored(stored_at=now, sha256=sha256_hex(content))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
            replace_file(_note_of(path), note.canonical())  # a note for other content invalidates the entry
        except OSError as error:
            _log.warning("endorsements are not cached: %s cannot be written: %s", path, error.strerror)


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + _SUFFIX)
