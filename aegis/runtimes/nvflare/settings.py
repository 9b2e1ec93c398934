"""What FLARE's processes read of their own host, beside FLARE's own files: a job never names a path.

The coordinator's workflow reads ``aegis.json`` in the site configuration directory (``local/``) of FLARE's server, the
sites' executor reads ``coreason.json`` in that of each client. FLARE's ``resources.json`` there lists the classes that
a job may name; with these settings, only the two of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from aegis.errors import RunFolderError
from coreason_enclave.crypto.encoding import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import FormatVersion, StrictModel, explain
from coreason_enclave.system.files import replace_file

__all__ = [
    "EXECUTOR",
    "GATE",
    "SERVER_SETTINGS",
    "SITE_SETTINGS",
    "WORKFLOW",
    "ServerSettings",
    "SiteSettings",
    "allowed_classes",
    "read_server_settings",
    "write_settings",
]

EXECUTOR: Final = "coreason_enclave.federation.executor.CoreasonExecutor"
WORKFLOW: Final = "aegis.runs.nvflare_server.CoordinatorWorkflow"
GATE: Final = "aegis.runtimes.nvflare.cell_gate.CellGate"

SERVER_SETTINGS: Final = "aegis.json"
SITE_SETTINGS: Final = "coreason.json"

_LIMIT = 1 << 20
_AbsolutePath = Annotated[str, Field(pattern=r"^/", max_length=4096)]


class ServerSettings(StrictModel):
    """``aegis.json``: the federation's folder, and the folder in which run folders lie; absolute."""

    version: FormatVersion
    federation: _AbsolutePath
    runs: _AbsolutePath


class SiteSettings(StrictModel):
    """``coreason.json``: where the site of each FLARE client is, and whether its agent or this process answers.

    Attributes:
        runs: ``agent``: the site's agent answers on its socket. ``session``: FLARE's own process opens the site.
        unsafe_seed: sampling and noise are injected from this number; sessions of development sites alone take it.
    """

    version: FormatVersion
    runs: Literal["agent", "session"]
    sites: dict[str, _AbsolutePath]
    unsafe_seed: Annotated[int, Field(ge=0)] | None = None


def read_server_settings(folder: Path) -> ServerSettings:
    """The server's settings in FLARE's site configuration directory.

    Raises:
        RunFolderError: there are none, or they cannot be used; nothing is assumed in their place.
    """
    path = folder / SERVER_SETTINGS
    try:
        return ServerSettings.model_validate(parse_json(path.read_bytes(), limit=_LIMIT))
    except OSError as error:
        raise RunFolderError(f"{path}: {error.strerror}: it has to name the federation and the runs' folder") from error
    except EnvelopeError as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from error
    except ValidationError as error:
        raise RunFolderError(f"{path}: {explain(error)}") from error


def write_settings(folder: Path, settings: ServerSettings | SiteSettings) -> None:
    """Write settings into a site configuration directory, mode 0600."""
    name = SERVER_SETTINGS if isinstance(settings, ServerSettings) else SITE_SETTINGS
    folder.mkdir(parents=True, exist_ok=True)
    document = settings.model_dump(mode="json", exclude_none=True)
    replace_file(folder / name, json.dumps(document, indent=2, sort_keys=True).encode())
    (folder / name).chmod(0o600)


def allowed_classes(resources: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """FLARE's ``resources.json`` with a list of the classes that a job may name, in place of FLARE's own list.

    >>> allowed_classes({"format_version": 2}, [EXECUTOR])["class_allow_list"]
    ['coreason_enclave.federation.executor.CoreasonExecutor']
    """
    return {**resources, "class_allow_list": list(classes), "class_list_enforcement_mode": "enforce"}
