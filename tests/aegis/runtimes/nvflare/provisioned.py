"""A deployment from the kits that ``aegis nvflare provision`` makes, started by the kits' own scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from aegis.cli import main
from aegis.runtimes.nvflare.site_guards import set_storage_root
from aegis.services.participants import free_ports
from coreason_enclave.system.processes import spawn, terminate

__all__ = ["Kits", "aegis", "flare_environment", "provisioned", "started"]


def aegis(*arguments: str | Path) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Kits:
    """The folders of the kits."""

    server: Path
    admin: Path
    sites: dict[str, Path]


def provisioned(path: Path) -> Kits:
    """Kits for the federation at ``path``, made by the command, and filled in as their owners would."""
    options = ("--server", "localhost", "--port", free_ports(1)[0], "--admin", "you@example.org")
    made = aegis("nvflare", "provision", path, *map(str, options), "--out", path / "kits", "--runs", path, "--json")
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    set_storage_root(Path(said["server"]) / "local", path / "storage")
    for site, kit in said["sites"].items():
        sample = json.loads((Path(kit) / "local" / "coreason.json.sample").read_bytes())
        sample["sites"] = {site: str(path / "sites" / site)}
        (Path(kit) / "local" / "coreason.json").write_text(json.dumps(sample))
    return Kits(Path(said["server"]), Path(said["admin"]), {site: Path(kit) for site, kit in said["sites"].items()})


@contextmanager
def started(path: Path, kits: Kits, environments: Mapping[str, Mapping[str, str]] = {}) -> Iterator[None]:
    """Agents, server and clients, until the body ends; ``environments`` is what a site's own FLARE client finds."""
    with ExitStack() as running:
        for site in kits.sites:
            config = path / "sites" / site / "site.toml"
            agent = [sys.executable, "-m", "coreason_enclave.main", "agent", "--socket-only", "--config", str(config)]
            agent += ["--unsafe-seed", "11"]
            running.callback(terminate, spawn(agent, log=path / f"{site}.log"))
        for name, kit in {"server": kits.server, **kits.sites}.items():
            command = ["bash", str(kit / "startup" / "sub_start.sh"), "--once"]
            environment = {**flare_environment(), **environments.get(name, {})}
            running.callback(terminate, spawn(command, log=path / f"flare-{name}.log", env=environment), grace_s=5)
        yield


def flare_environment() -> dict[str, str]:
    """What a kit's script finds."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_PROXY": "*"}
