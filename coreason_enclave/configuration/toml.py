"""TOML for configuration: measured in one pass, then parsed by the standard library.

Three weaknesses of ``tomllib`` require the pass:

* a key of many parts takes quadratic time;
* nested arrays exhaust the stack;
* a number of 5,000 digits raises a bare ``ValueError``.

No configuration needs such text, so the pass refuses it beforehand. The pass skips strings and comments, whose content
is free, and counts everything else. The pass may also count in text outside TOML; the parser still judges all text that
passes.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from coreason_enclave.configuration.files import MAX_BYTES, decoded, read_text
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import explained

MAX_DEPTH = 16
"""Largest nesting depth of arrays and tables."""
MAX_KEY_PARTS = 16
MAX_WORD = 256
"""Largest length of a number, a date-time or a bare key, in characters."""

_Model = TypeVar("_Model", bound=BaseModel)

# One token: a string or a comment (skipped), a bare word, or a counted sign. Possessive quantifiers let the pass look
# at each character only once, for any text.
_TOKEN = re.compile(
    r'"""(?s:(?:[^"\\]|\\.|"(?!""))*+)(?:"""(?:""?)?)?'
    r"|'''(?s:(?:[^']|'(?!''))*+)(?:'''(?:''?)?)?"
    r'|"(?:[^"\\\n]|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+"
    r"|[0-9A-Za-z_+:-]++"
    r"|[][{}.,=\n]"
)


def read_toml(path: Path, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Return the content of a TOML file of at most ``limit`` bytes, or raise :class:`ConfigurationError`."""
    return _parsed(read_text(path, limit=limit), str(path))


def read_toml_as(path: Path, model: type[_Model], *, limit: int = MAX_BYTES) -> _Model:
    """Return the document in a TOML file, validated as ``model``.

    Raises:
        ConfigurationError: the file cannot be read or parsed, or breaks the model; the message names each wrong field.
    """
    document = read_toml(path, limit=limit)
    with explained(lambda why: ConfigurationError(f"{path}: {why}")):
        return model.model_validate(document)


def parse_toml(data: bytes, name: str, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Return the content of TOML already read.

    Raises:
        ConfigurationError: ``data`` exceeds ``limit`` or is not acceptable TOML; the message calls the source ``name``.
    """
    return _parsed(decoded(data, name, limit=limit), name)


def _parsed(text: str, name: str) -> dict[str, Any]:
    _measure(text, name)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError, OverflowError) as error:  # TOMLDecodeError derives from ValueError
        raise ConfigurationError(f"{name} is not TOML: {error}") from error


def _measure(text: str, name: str) -> None:
    depth, parts, line = 0, 1, 1
    for token in _TOKEN.finditer(text):
        literal = token[0]
        sign = literal if len(literal) == 1 else ""
        if sign in ("[", "{"):
            depth, parts = depth + 1, 1
        elif sign in ("]", "}"):
            depth, parts = max(depth - 1, 0), 1
        elif sign == ".":
            parts += 1
        elif sign in (",", "=", "\n"):
            parts = 1
        elif len(literal) > MAX_WORD and literal[0] not in "\"'#":
            raise _refused(name, line, f"{literal[:12]}… has {len(literal)} characters; the limit is {MAX_WORD}")
        if depth > MAX_DEPTH:
            raise _refused(name, line, f"arrays and tables are nested more than {MAX_DEPTH} levels deep")
        if parts > MAX_KEY_PARTS:
            raise _refused(name, line, f"a key has more than {MAX_KEY_PARTS} parts")
        line += literal.count("\n")


def _refused(name: str, line: int, message: str) -> ConfigurationError:
    return ConfigurationError(f"{name}, line {line}: {message}")
