"""Creates startup kits with FLARE's own provisioning: certificate authority, signed kits, and this project's guards.

- The key of FLARE's certificate authority signs the generated files in each kit's ``startup/``. FLARE 2.9 signs kits
  only for confidential computing and homomorphic encryption, so this module signs all kits.
- FLARE checks every kit with signatures: a server or client with a modified ``startup/`` does not start.
- The guards are the site configuration files in each kit's ``local/``, a folder that FLARE leaves to the host's
  operator; see :mod:`.site_guards`.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from nvflare.lighter.constants import CtxKey, ProvFileName
from nvflare.lighter.prov_utils import prepare_builders
from nvflare.lighter.provision import prepare_project
from nvflare.lighter.provisioner import Provisioner
from nvflare.lighter.utils import sign_folders

from aegis.errors import RunFolderError
from aegis.runtimes.nvflare.cell_rules import SERVER
from aegis.runtimes.nvflare.site_guards import guard_server, guard_site

_ORGANISATION: Final = "federation"
_ROLE: Final = "lead"
"""May submit jobs, and end, copy and download its own jobs (:mod:`.site_guards`). No kit gets another role."""


@dataclass(frozen=True)
class Project:
    """The input of provisioning.

    Attributes:
        name: FLARE's name of the project. server: host name for clients, also in the server's certificate.
        port: port of FLARE's server, for clients and for job administration.
        admin: the administrator, an e-mail address. sites: site ids of the clients.
    """

    name: str
    server: str
    port: int
    admin: str
    sites: Collection[str]

    def document(self) -> dict[str, Any]:
        """Return FLARE's ``project.yml``."""
        participants: list[dict[str, Any]] = [
            {"name": self.server, "type": "server", "fed_learn_port": self.port, "admin_port": self.port},
            *({"name": site, "type": "client"} for site in sorted(self.sites)),
            {"name": self.admin, "type": "admin", "role": _ROLE},
        ]
        builders = "nvflare.lighter.impl"
        return {
            "api_version": 3,
            "name": self.name,
            "description": "sealed messages between a coordinator and its sites",
            "participants": [{**each, "org": _ORGANISATION} for each in participants],
            "builders": [
                {
                    "path": f"{builders}.workspace.WorkspaceBuilder",
                    "args": {"template_file": ["master_template.yml"]},
                },
                {"path": f"{builders}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
                {"path": f"{builders}.cert.CertBuilder"},
                {"path": f"{builders}.signature.SignatureBuilder"},
            ],
        }


@dataclass(frozen=True)
class Kits:
    """The startup kits: one folder for the server, one for the administrator, and one per site."""

    server: Path
    admin: Path
    sites: Mapping[str, Path]


def provision(project: Project, folder: Path) -> Kits:
    """Provision ``project`` into a new folder, and write the guards into each kit.

    ``folder/project.yml`` stores FLARE's input. Keep ``folder``: the folder also holds the key of
    FLARE's certificate authority.

    Raises:
        RunFolderError: the folder exists, a site has the server's or administrator's name, or FLARE rejects a name. A
            rejected project leaves no folder behind.
    """
    if taken := sorted({SERVER, project.server, project.admin} & set(project.sites)):
        raise RunFolderError(f"NVIDIA FLARE cannot provision this: {taken[0]} is both a site id and the server's name")
    if folder.exists():
        raise RunFolderError(f"{folder} exists: name a folder that does not exist yet")
    folder.mkdir(mode=0o700, parents=True)
    try:
        kits = _built(project, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    guard_server(kits.server / "local")
    for kit in kits.sites.values():
        guard_site(kit / "local")
    return kits


def _built(project: Project, folder: Path) -> Kits:
    document, complaints = project.document(), _Complaints()
    (folder / "project.yml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            provisioner = Provisioner(str(folder), prepare_builders(document), None)
            context = provisioner.provision(prepare_project(document), logger=complaints)
    except (Exception, SystemExit) as error:  # FLARE raises many kinds for invalid names
        raise RunFolderError(f"NVIDIA FLARE cannot provision this: {error}") from error
    if context.get(CtxKey.BUILD_ERROR):
        raise RunFolderError(f"NVIDIA FLARE cannot provision this: {complaints.last}")
    built = Path(context[CtxKey.CURRENT_PROD_DIR])
    kits = Kits(built / project.server, built / project.admin, {site: built / site for site in project.sites})
    for kit in (kits.server, kits.admin, *kits.sites.values()):
        sign_folders(str(kit / "startup"), context[CtxKey.ROOT_PRI_KEY], signature_file=ProvFileName.SIGNATURE_JSON)
    return kits


class _Complaints:
    """A logger for FLARE's provisioning that keeps the last error."""

    def __init__(self) -> None:
        self.last = "no reason given"

    def debug(self, message: str) -> None:
        """Discard the message."""

    def info(self, message: str) -> None:
        """Discard the message."""

    def warning(self, message: str) -> None:
        """Discard the message."""

    def error(self, message: str) -> None:
        """Keep the message."""
        self.last = " ".join(str(message).split())
