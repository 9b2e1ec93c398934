"""Text out of a file that somebody else wrote, for a terminal: nothing in the text is obeyed or starts a line."""

from __future__ import annotations

__all__ = ["visible"]


def visible(text: str) -> str:
    """The text on one line; control characters, and what no encoding has, as escapes.

    >>> visible("study\\n\\x1b[2J")
    'study\\\\u000a\\\\u001b[2J'
    """
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
