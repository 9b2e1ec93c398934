"""The digest of a dataset, computed while its file is read."""

from __future__ import annotations

import hashlib
import io

from coreason_enclave.crypto import frame
from coreason_enclave.datasets.paths import CHUNK_BYTES, OpenFile

DOMAIN = b"aegis.dataset.v1"
_HEAD_BYTES = 1 << 18


class HashedFile(io.RawIOBase):
    """Readable stream over an open file, which hashes every byte once, in order, and keeps the first bytes.

    The digest frames domain, schema and rows as :func:`coreason_enclave.crypto.digest` does. The frame holds the
    length, so the size at opening counts, and another number of bytes refuses the file.
    """

    def __init__(self, file: OpenFile, schema_bytes: bytes) -> None:
        super().__init__()
        if file.size > file.limit:
            raise file.too_large()
        self.file, self.head = file, b""
        self._hash = hashlib.sha256(frame(DOMAIN, schema_bytes) + file.size.to_bytes(8, "big"))
        self._seen = 0
        self._final: str | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes."""
        data = self.file.read(size if size >= 0 else self.file.limit + 1)
        self._hash.update(data)
        self._seen += len(data)
        if len(self.head) < _HEAD_BYTES:
            self.head += data[: _HEAD_BYTES - len(self.head)]
        return data

    def hexdigest(self) -> str:
        """Read the rest of the file and return the digest (hex); later calls read nothing.

        Raises:
            DatasetRejected: the file's length differs from its length at opening.
        """
        if self._final is None:
            while self.read(CHUNK_BYTES):
                pass
            if self._seen != self.file.size:
                raise self.file.changed()
            self._final = self._hash.hexdigest()
        return self._final
