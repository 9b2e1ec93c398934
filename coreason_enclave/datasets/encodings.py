"""The encoding that the first bytes of a text seem to have: for the words of a refusal, never for reading."""

from __future__ import annotations

import codecs
import re


def decoded(data: bytes, codec: str) -> str | None:
    """Return the text, or None if the bytes are not of this encoding. The last character may be incomplete."""
    decoder = codecs.getincrementaldecoder(codec)(errors="strict")
    try:
        return decoder.decode(data)  # not final: the head may end within a character
    except UnicodeError:
        return None


def encoding_of(data: bytes) -> tuple[str, str]:
    """Return the encoding that the bytes seem to have, and words for it; two empty texts without a guess."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", "UTF-16 text"
    zeros = data[:4096]
    if zeros[1::2].count(0) > len(zeros) // 4 and not zeros[::2].count(0):
        return "utf-16-le", "UTF-16 text"
    if zeros[::2].count(0) > len(zeros) // 4 and not zeros[1::2].count(0):
        return "utf-16-be", "UTF-16 text"
    if b"\0" in data:
        return "", ""
    if decoded(data, "utf-8") is not None:
        return "utf-8", "UTF-8 text"
    return _national(data)


def _national(data: bytes) -> tuple[str, str]:
    """Tell national encodings apart by the runs of bytes above 127."""
    runs = re.findall(rb"[\x80-\xff]+", data)
    high = b"".join(runs)
    leads = b"".join(run[::2] for run in runs)
    in_pairs = bool(runs) and all(len(run) % 2 == 0 for run in runs)
    if in_pairs and _share(leads, 0xB0, 0xD7) > 0.6 and decoded(data, "gb18030") is not None:
        return "gb18030", "GB18030 text (Chinese)"
    if _share(high, 0x81, 0x84) > 0.25 and decoded(data, "cp932") is not None:
        return "cp932", "Shift JIS text (Japanese)"
    if len(high) > 1.6 * len(runs):
        if _share(high, 0xE0, 0xFF) > 0.5 and decoded(data, "cp1251") is not None:
            return "cp1251", "Windows-1251 text (Cyrillic)"
        if _share(high, 0xC0, 0xDF) > 0.5:
            return "koi8-r", "KOI8-R text (Cyrillic)"
        if _share(high, 0x80, 0xAF) > 0.5:
            return "cp866", "DOS text (Cyrillic)"
    if decoded(data, "cp1252") is not None:
        return "cp1252", "Windows-1252 text (Western European)"
    return "latin-1", "Latin-1 text"


def _share(data: bytes, low: int, high: int) -> float:
    return sum(low <= byte <= high for byte in data) / max(1, len(data))
