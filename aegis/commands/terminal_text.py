"""Makes text from untrusted files safe for a terminal: no control sequence, no new line."""

from __future__ import annotations


def visible(text: str) -> str:
    """Return the text on one line, with unprintable characters (controls, lone surrogates) as escapes.

    >>> visible("study\\n\\x1b[2J")
    'study\\\\u000a\\\\u001b[2J'
    """
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
