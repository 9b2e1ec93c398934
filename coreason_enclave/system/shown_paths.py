"""Paths as a reader meets them: relative to the folder that the reader stands in."""

from __future__ import annotations

import os
import re
from pathlib import Path

_BEFORE = r"(?<![^\s'\"`(\[<=,:])"
"""What may stand before a path in a sentence: a path behind any other sign is the end of a longer path."""
_END = r"(?=[\s'\"`)\]>,;:]|$)"
"""What may follow the folder itself. Before a full stop the folder stays whole, as ``..`` would name another."""


def from_here(text: str) -> str:
    """Return ``text`` with each path below the current folder written relative to that folder; others stay absolute.

    A folder whose name merely begins like the current folder's is another folder. The current folder itself is ``.``.

    >>> from_here(f"cannot read {Path.cwd() / 'study' / 'study.toml'}: No such file or directory")
    'cannot read study/study.toml: No such file or directory'
    """
    for folder in _names_of_here():
        if folder in text:
            text = re.sub(f"{_BEFORE}{re.escape(folder)}/+(?=[^\\s/])", "", text)
            text = re.sub(f"{_BEFORE}{re.escape(folder)}/?{_END}", ".", text)
    return text


def _names_of_here() -> list[str]:
    """Return the current folder's path, and the path by which a shell came here over a link; none for the root."""
    names: list[str] = []
    try:
        names.append(str(Path.cwd()))
        given = Path(os.environ.get("PWD", ""))
        if given.is_absolute() and given.samefile("."):
            names.append(str(given))
    except (OSError, ValueError):
        pass  # the current folder is gone, or PWD names none: every path stays as it is
    return [name for name in dict.fromkeys(names) if name != os.sep]
