"""An administrator's startup kit, as far as it is read before FLARE is asked to use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aegis.errors import RunFolderError
from coreason_enclave.system.files import replace_file

__all__ = ["AdminKit", "read_admin_kit", "remember_admin_kit", "remembered_admin_kit"]

_REMEMBERED: Final = Path("coordinator") / "nvflare-admin-kit.json"
"""In the federation's folder: where the administrator's kit was made."""


@dataclass(frozen=True)
class AdminKit:
    """The kit of an administrator: its folder, whose kit it is, and the server that it is for."""

    folder: Path
    username: str
    server: str


def read_admin_kit(folder: Path) -> AdminKit:
    """Read an administrator's kit.

    Raises:
        RunFolderError: the folder is no such kit; a site's or a server's is none either.
    """
    path = folder / "startup" / "fed_admin.json"
    try:
        admin = json.loads(path.read_text(encoding="utf-8"))["admin"]
        kit = AdminKit(folder.absolute(), str(admin["username"]), f"{admin['host']}:{admin['port']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder} is no startup kit of an administrator: startup/fed_admin.json") from error
    for name in ("client.crt", "client.key", "rootCA.pem"):
        if not (folder / "startup" / name).is_file():
            raise RunFolderError(f"{folder} is no startup kit of an administrator: it has no startup/{name}")
    return kit


def remember_admin_kit(federation: Path, kit: Path) -> None:
    """Note where the administrator's kit for a federation was made, for the lines that name it."""
    replace_file(federation / _REMEMBERED, json.dumps({"admin_kit": str(kit.absolute())}).encode())


def remembered_admin_kit(federation: Path) -> Path | None:
    """Where the administrator's kit was made on this host; None where none was, or it is there no more."""
    try:
        kit = Path(json.loads((federation / _REMEMBERED).read_bytes())["admin_kit"])
        return read_admin_kit(kit).folder
    except (OSError, ValueError, KeyError, TypeError, RunFolderError):
        return None
