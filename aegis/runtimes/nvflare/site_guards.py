"""Writes FLARE's own guards, which FLARE enforces, into a startup kit's site configuration folder (``local/``).

::

    authorization.json   rights per role: a lead manages its own jobs, and never others' processes (``operate``);
                         no role brings code (``byoc``) or gets a shell
    privacy.json         one scope for every job; FLARE refuses a job that names another scope
    resources.json       the classes that a job may name; a site never streams its logs to the server; at the server,
                         the gate before its cells (:mod:`.cell_gate`)
    coreason.json.sample at a site: a template with the site's folder, for the operator to fill in

The files belong to sites and server; a job cannot change them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from aegis.errors import RunFolderError
from aegis.runtimes.nvflare.settings import EXECUTOR, GATE, SITE_SETTINGS, WORKFLOW, allowed_classes
from coreason_enclave.system import replace_file

_NO_CODE: Final = {"byoc": "none", "server-predeployed-flwr": "none", "shell_commands": "none"}
_AUTHORIZATION: Final[Mapping[str, Any]] = {
    "format_version": "1.0",
    "permissions": {
        "lead": {"submit_job": "any", "clone_job": "n:submitter", "manage_job": "n:submitter",
                 "download_job": "n:submitter", "view": "any", "operate": "none", **_NO_CODE},
    },
}  # fmt: skip
"""The lead submits jobs, and ends, copies, downloads and deletes its own. No kit gets another role. FLARE denies every
right to a role missing here."""
_GATE: Final = {"id": "cell_gate", "path": GATE, "args": {}}
_STREAMER = "site_log_streamer"
_SITE_FOLDER = "/the/folder/with/site.toml"


def guard_site(local: Path) -> None:
    """Write the guards of a site's FLARE client.

    Raises:
        RunFolderError: ``local`` holds no default files of a FLARE kit.
    """
    _guard(local, EXECUTOR, _without_streaming)
    _write(
        local / f"{SITE_SETTINGS}.sample", {"version": 1, "runs": "agent", "sites": {local.parent.name: _SITE_FOLDER}}
    )


def guard_server(local: Path) -> None:
    """Write the guards of FLARE's server. Raises the errors of :func:`guard_site`."""
    _guard(local, WORKFLOW, _with_gate)


def set_storage_root(local: Path, storage: Path) -> None:
    """Store a server's jobs and snapshots in ``storage``. By default all servers share one place in ``/tmp``.

    Raises:
        RunFolderError: the server's ``resources.json`` does not fit FLARE 2.9.
    """
    path = local / "resources.json"
    resources = _read(path)
    try:
        manager = next(each for each in resources["components"] if each["id"] == "job_manager")
        manager["args"]["uri_root"] = str(storage / "jobs")
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(storage / "snapshots")
    except (KeyError, StopIteration, TypeError) as error:
        raise RunFolderError(f"{path} is not a server's file of NVIDIA FLARE 2.9") from error
    _write(path, resources)


def _one_scope() -> dict[str, Any]:
    return {
        "scopes": [{"name": "sealed", "properties": {}, "task_result_filters": [], "task_data_filters": []}],
        "default_scope": "sealed",
    }


def _with_gate(resources: dict[str, Any]) -> dict[str, Any]:
    """Add the gate, which the server's processes build before they open a cell."""
    return {**resources, "components": [*resources.get("components", []), _GATE]}


def _without_streaming(resources: dict[str, Any]) -> dict[str, Any]:
    """Remove log streaming, so that a site's log stays at the site."""
    components = [each for each in resources.get("components", []) if each.get("id") != _STREAMER]
    return {**resources, "allow_log_streaming": False, "components": components}


def _guard(local: Path, own: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    resources = allowed_classes(change(_read(local / "resources.json.default")), [own])
    _write(local / "authorization.json", _AUTHORIZATION)
    _write(local / "privacy.json", _one_scope())
    _write(local / "resources.json", resources)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: the folder is not a startup kit of NVIDIA FLARE 2.9") from error
    if not isinstance(document, dict):
        raise RunFolderError(f"{path} must hold a JSON object")
    return document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    replace_file(path, f"{json.dumps(document, indent=2)}\n".encode())
