"""Host settings for FLARE's processes, next to FLARE's own files, so that no job ever names a path.

- The coordinator's workflow reads ``aegis.json`` in the site configuration directory (``local/``) of FLARE's server.
- Each site's executor reads ``coreason.json`` in the site configuration directory of its client.
- FLARE's ``resources.json`` in the same directory lists the classes that a job may name: with these settings, only
  this project's workflow and executor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from aegis.errors import RunFolderError
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import FormatVersion, StrictModel
from coreason_enclave.system import explain, replace_file

EXECUTOR: Final = "coreason_enclave.federation.executor.CoreasonExecutor"
WORKFLOW: Final = "aegis.runs.nvflare_server.CoordinatorWorkflow"
GATE: Final = "aegis.runtimes.nvflare.cell_gate.CellGate"

SERVER_SETTINGS: Final = "aegis.json"
SITE_SETTINGS: Final = "coreason.json"

_LIMIT = 1 << 20
_AbsolutePath = Annotated[str, Field(pattern=r"^/", max_length=4096)]


class ServerSettings(StrictModel):
    """``aegis.json``: absolute paths of the federation's folder and of the folder that holds the run folders."""

    version: FormatVersion
    federation: _AbsolutePath
    runs: _AbsolutePath


class SiteSettings(StrictModel):
    """``coreason.json``: site folder per FLARE client, and the process that answers.

    Attributes:
        runs: ``agent``: the site's agent answers on its socket. ``session``: FLARE's own process opens the site.
        unsafe_seed: number from which sampling and noise derive; only sessions of development sites accept a seed.
    """

    version: FormatVersion
    runs: Literal["agent", "session"]
    sites: dict[str, _AbsolutePath]
    unsafe_seed: Annotated[int, Field(ge=0)] | None = None


def read_server_settings(folder: Path) -> ServerSettings:
    """Read the server's settings from FLARE's site configuration directory.

    Raises:
        RunFolderError: the file is missing or invalid; the function assumes no defaults.
    """
    path = folder / SERVER_SETTINGS
    try:
        return ServerSettings.model_validate(parse_json(path.read_bytes(), limit=_LIMIT))
    except OSError as error:
        raise RunFolderError(f"{path}: {error.strerror}: the file must name federation and folder of runs") from error
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
    """Return FLARE's ``resources.json`` with FLARE's list of allowed job classes replaced by ``classes``.

    >>> allowed_classes({"format_version": 2}, [EXECUTOR])["class_allow_list"]
    ['coreason_enclave.federation.executor.CoreasonExecutor']
    """
    return {**resources, "class_allow_list": list(classes), "class_list_enforcement_mode": "enforce"}
