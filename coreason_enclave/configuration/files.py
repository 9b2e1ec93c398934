"""Reads the bytes of a configuration file as text: UTF-8, up to a size limit."""

from __future__ import annotations

from pathlib import Path

from coreason_enclave.errors import ConfigurationError

MAX_BYTES = 1 << 20
"""Largest configuration file, in bytes: more than a federation of two thousand sites needs."""


def read_text(path: Path, *, limit: int = MAX_BYTES) -> str:
    """Return the text of a file of at most ``limit`` bytes.

    Raises:
        ConfigurationError: the file cannot be read, exceeds ``limit``, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
        problem = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {path}: {problem}") from error
    return decoded(data, str(path), limit=limit)


def decoded(data: bytes, name: str, *, limit: int) -> str:
    """Return the text of ``data``.

    Raises:
        ConfigurationError: ``data`` exceeds ``limit`` or is not UTF-8; the message calls the source ``name``.
    """
    if len(data) > limit:
        raise ConfigurationError(f"{name} is larger than {limit} bytes, the limit for configuration files")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{name}, line {line}: not UTF-8 ({error.reason})") from error


def missing(error: ConfigurationError) -> bool:
    """Return True if ``error`` reports a missing file."""
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
