"""How a run over NVIDIA FLARE is hosted. Imports nothing of FLARE, so that a command line can name it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from aegis.runtimes.nvflare.settings import EXECUTOR

__all__ = ["FlareHosting", "FlareOptions"]


class FlareHosting(StrEnum):
    """Where FLARE's server and clients run."""

    SIMULATOR = "simulator"
    """FLARE's simulator: processes of one run on this host, sites opened by FLARE's own processes"""
    POC = "poc"
    """a proof of concept: FLARE's real server and clients on this host, with a site agent beside each client"""
    STARTUP_KIT = "startup-kit"
    """a deployment that runs already, reached with an administrator's startup kit"""


@dataclass(frozen=True)
class FlareOptions:
    """How one run is hosted.

    Attributes:
        threads: simulator: sites that work at the same time; None: all of them.
        executor: simulator: dotted path of the class that answers for a site.
        kit: startup-kit: the administrator's folder.
    """

    hosting: FlareHosting = FlareHosting.SIMULATOR
    threads: int | None = None
    executor: str = EXECUTOR
    kit: Path | None = None

    def described(self) -> dict[str, str]:
        """For a run's records: what a run may be gone on with in another way, but was begun with."""
        return {"hosting": self.hosting.value, "executor": self.executor}
