"""Options for hosting a run over NVIDIA FLARE. Imports no part of FLARE, so that a command line can load them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from aegis.runtimes.nvflare.settings import EXECUTOR


class FlareHosting(StrEnum):
    """The place where FLARE's server and clients run."""

    SIMULATOR = "simulator"
    """FLARE's simulator: processes of one run on this host; FLARE's own processes open the sites"""
    POC = "poc"
    """a proof of concept: FLARE's real server and clients on this host, with a site agent per client"""
    STARTUP_KIT = "startup-kit"
    """a running deployment, reached with an administrator's startup kit"""


@dataclass(frozen=True)
class FlareOptions:
    """Hosting options of one run.

    Attributes:
        threads: simulator: number of sites that work in parallel; None: all sites.
        executor: simulator: dotted path of the class that answers for a site.
        kit: startup-kit: the administrator's folder.
    """

    hosting: FlareHosting = FlareHosting.SIMULATOR
    threads: int | None = None
    executor: str = EXECUTOR
    kit: Path | None = None

    def described(self) -> dict[str, str]:
        """Return the initial hosting for the run's records. A later command may continue the run with other hosting."""
        return {"hosting": self.hosting.value, "executor": self.executor}
