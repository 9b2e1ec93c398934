"""Reads the parts of an administrator's startup kit that the platform needs before FLARE uses the kit.

An early check gives a clear error for a wrong folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aegis.errors import RunFolderError
from coreason_enclave.system import replace_file

_REMEMBERED: Final = Path("coordinator") / "nvflare-admin-kit.json"
"""File in the federation's folder with the path of the administrator's kit."""


@dataclass(frozen=True)
class AdminKit:
    """An administrator's startup kit: its folder, the administrator's name, and the address of the kit's server."""

    folder: Path
    username: str
    server: str


def read_admin_kit(folder: Path) -> AdminKit:
    """Read an administrator's kit.

    Raises:
        RunFolderError: the folder holds no administrator's kit; a site's or a server's kit does not count.
    """
    path = folder / "startup" / "fed_admin.json"
    try:
        admin = json.loads(path.read_text(encoding="utf-8"))["admin"]
        kit = AdminKit(folder.absolute(), str(admin["username"]), f"{admin['host']}:{admin['port']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder}: no administrator's kit, startup/fed_admin.json missing or invalid") from error
    for name in ("client.crt", "client.key", "rootCA.pem"):
        if not (folder / "startup" / name).is_file():
            raise RunFolderError(f"{folder}: no administrator's kit, startup/{name} missing")
    return kit


def remember_admin_kit(federation: Path, kit: Path) -> None:
    """Store the path of the administrator's kit for a federation, for later command lines that name the kit."""
    replace_file(federation / _REMEMBERED, json.dumps({"admin_kit": str(kit.absolute())}).encode())


def remembered_admin_kit(federation: Path) -> Path | None:
    """Return the stored path of the administrator's kit on this host; None without a valid kit at the path."""
    try:
        kit = Path(json.loads((federation / _REMEMBERED).read_bytes())["admin_kit"])
        return read_admin_kit(kit).folder
    except (OSError, ValueError, KeyError, TypeError, RunFolderError):
        return None
