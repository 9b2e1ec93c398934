"""The bytes of a configuration file, as text: at most so many, and in UTF-8."""

from __future__ import annotations

from pathlib import Path

from coreason_enclave.errors import ConfigurationError

__all__ = ["MAX_BYTES", "decoded", "missing", "read_text"]

MAX_BYTES = 1 << 20
"""More than a federation of two thousand sites needs."""


def read_text(path: Path, *, limit: int = MAX_BYTES) -> str:
    """The text of a file of at most ``limit`` bytes; raises :class:`ConfigurationError`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        said = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {path}: {said}") from error
    return decoded(data, str(path), limit=limit)


def decoded(data: bytes, name: str, *, limit: int) -> str:
    """The text of ``data``; raises :class:`ConfigurationError`, which calls it ``name``."""
    if len(data) > limit:
        raise ConfigurationError(f"{name} is larger than {limit} bytes: no configuration is")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{name}, line {line}: not UTF-8 ({error.reason})") from error


def missing(error: ConfigurationError) -> bool:
    """Whether ``error`` says that the file is not there."""
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
