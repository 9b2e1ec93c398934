"""The text of a CSV file as a stream of UTF-8: decompressed, decoded and counted while the file is hashed."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import threading
import zlib

from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.paths import CHUNK_BYTES

_PEEK_BYTES = 1 << 22
_MAX_LEAD = 4
_PATIENCE_S = 0.5
_LINE_END = re.compile(rb"\r\n|\r|\n")


class NotText(Exception):
    """Raised for bytes outside the declared encoding or compression; the message names the problem."""


class CsvText(io.RawIOBase):
    """Readable stream of a CSV file's text.

    - counts lines up to the last line with content;
    - appends ``ending`` after the last byte: a reader that does not see the ending stands within an unclosed quote;
    - raises :class:`NotText` for NUL bytes and for bytes outside the declared encoding;
    - lets a reading thread be at most :data:`_MAX_LEAD` blocks ahead of :meth:`advance`. pyarrow's thread would hold
      32 blocks ahead in memory. A wait ends after half a second, so no order of calls can block for ever.
    """

    def __init__(self, source: HashedFile, form: CsvForm) -> None:
        super().__init__()
        self._source, self._form = source, form
        self._plain: io.RawIOBase | gzip.GzipFile = (
            gzip.GzipFile(fileobj=source, mode="rb") if form.compression == "gzip" else source
        )
        self._decoder = codecs.getincrementaldecoder(form.codec)(errors="strict")
        self._utf8 = form.codec in {"utf-8", "utf-8-sig", "ascii"}
        self._pending = bytearray()
        self._read_bytes, self._ended = 0, False
        self._lines, self._last_byte = 0, b""
        self._skip = form.skip_rows
        self._lead, self._turn = 0, threading.Condition()
        self._stopped = False
        self.ending = b""
        self.content_lines = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def peek_head(self) -> bytes:
        """Return the first bytes of the text, with at least one whole line if the text has one within 4 MiB."""
        while len(self._pending) < _PEEK_BYTES and self._fill():
            if len(self._pending) >= CHUNK_BYTES and _LINE_END.search(self._pending):
                break
        return bytes(self._pending)

    def advance(self) -> None:
        """Let the reading thread read one more block."""
        with self._turn:
            self._lead -= 1
            self._turn.notify()

    def stop(self) -> None:
        """End the stream for a thread that still reads: nothing is read any more."""
        with self._turn:
            self._stopped = True
            self._turn.notify()

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, fewer only at the end."""
        with self._turn:
            if not self._turn.wait_for(lambda: self._stopped or self._lead < _MAX_LEAD, _PATIENCE_S):
                self._lead = 0  # blocks without a batch: count again from here
            self._lead += 1
            if self._stopped:
                return b""
            return self._read(size)

    def _read(self, size: int) -> bytes:
        while (size < 0 or len(self._pending) < size) and self._fill():
            pass
        if self._ended and self.ending and (size < 0 or len(self._pending) < size):
            self._pending += self.ending
            self.ending = b""
        part = bytes(self._pending[: len(self._pending) if size < 0 else size])
        del self._pending[: len(part)]
        return part

    def _fill(self) -> bool:
        if self._ended:
            return False
        raw = self._read_raw()
        text = self._decoded(raw)
        if b"\0" in text:
            raise NotText("the file holds NUL bytes: it is not a text file")
        if self._skip:
            text = self._without_skipped(text, at_end=not raw)
        self._count(text)
        self._pending += text
        self._ended = not raw
        return not self._ended

    def _read_raw(self) -> bytes:
        try:
            raw = self._plain.read(CHUNK_BYTES) or b""
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise NotText("the file is not whole gzip data") from None
        self._read_bytes += len(raw)
        if self._read_bytes > self._source.file.limit:
            raise NotText(f"the file holds more than {self._source.file.limit} bytes of text: split the dataset")
        return raw

    def _decoded(self, raw: bytes) -> bytes:
        try:
            if self._utf8 and raw.isascii() and not self._decoder.getstate()[0]:
                return raw
            text = self._decoder.decode(raw, final=not raw)
            return raw if self._utf8 else text.encode()
        except UnicodeError:
            raise NotText(f"the file is not {self._form.encoding.upper()}") from None

    def _without_skipped(self, text: bytes, *, at_end: bool) -> bytes:
        self._pending += text
        ends = list(_LINE_END.finditer(self._pending))
        whole = ends if at_end else [end for end in ends if end.end() < len(self._pending)]  # "\r" may become "\r\n"
        if len(whole) < self._skip:
            if at_end or len(self._pending) > _PEEK_BYTES:
                raise NotText(f"the file has fewer than skip_rows = {self._form.skip_rows} lines before its header")
            return b""
        rest = bytes(self._pending[whole[self._skip - 1].end() :])
        self._pending.clear()
        self._skip = 0
        return rest

    def _count(self, text: bytes) -> None:
        content = text.rstrip(b"\r\n\t ")
        if content:
            self.content_lines = self._lines + _line_ends(content, self._last_byte) + 1
        self._lines += _line_ends(text, self._last_byte)
        self._last_byte = text[-1:] or self._last_byte


def _line_ends(text: bytes, before: bytes) -> int:
    count = text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
    return count - 1 if before == b"\r" and text[:1] == b"\n" else count
