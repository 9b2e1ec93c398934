"""Reads ``coreason.json`` in FLARE's site configuration folder: this host's site folders, and the process that answers.

The file belongs to the host. No job carries a path, and no job can change the file.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import ConfigurationError, EnvelopeError
from coreason_enclave.schemas import FormatVersion, SafeId, StrictModel, in_range
from coreason_enclave.system import explain

SETTINGS_FILE = "coreason.json"


class Runs(StrEnum):
    """The process that answers: ``agent``, the site's agent over its socket; ``session``, this process (simulator)."""

    AGENT = "agent"
    SESSION = "session"


def _absolute(text: str) -> str:
    if not Path(text).is_absolute():
        raise ValueError("must be an absolute path")
    return text


class LocalSettings(StrictModel):
    """The executor's settings.

    Attributes:
        sites: site folder by FLARE client name, which equals the site id.
        unsafe_seed: derives the noise from a known number, for reproducible runs; ``session`` only.
    """

    version: FormatVersion
    runs: Runs
    sites: Annotated[dict[SafeId, Annotated[str, AfterValidator(_absolute)]], Field(min_length=1)]
    unsafe_seed: Annotated[int, *in_range(0, 1 << 53)] | None = None

    @model_validator(mode="after")
    def _seed_is_the_sessions(self) -> Self:
        if self.unsafe_seed is not None and self.runs is not Runs.SESSION:
            raise ValueError("unsafe_seed needs runs = session: give an agent its seed with --unsafe-seed")
        return self

    def folder_of(self, name: str) -> Path:
        """Return the site folder of a client. Raises :class:`ConfigurationError` for an unlisted name."""
        if name not in self.sites:
            raise ConfigurationError(f"{SETTINGS_FILE} names no site folder for the client {name!r:.80}")
        return Path(self.sites[name])


def load_local_settings(folder: Path) -> LocalSettings:
    """Read ``coreason.json`` in ``folder``.

    Raises:
        ConfigurationError: the file is missing or malformed, or has unknown fields.
    """
    path = folder / SETTINGS_FILE
    try:
        return LocalSettings.model_validate(parse_json(path.read_bytes()))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except EnvelopeError as error:
        raise ConfigurationError(f"{path} is not a JSON object: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error)}") from error
