"""Findings of the doctor's checks, worded for the person who must act on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coreason_enclave.command_line import one_line
from coreason_enclave.errors import EnclaveError
from coreason_enclave.policy import SiteConfig


class DiagnosisLevel(StrEnum):
    """``ok``: works. ``warn``: works, perhaps only for now. ``FAIL``: the site cannot take part as configured."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Diagnosis:
    """One line: the check, the state found, and the remedy unless the verdict is ``ok``."""

    check: str
    verdict: DiagnosisLevel
    found: str
    to_do: str = ""


@dataclass(frozen=True)
class Examined:
    """The site under examination. ``now`` returns Unix seconds.

    ``socket_only``: the agent answers on its socket alone, and needs neither gateway nor the gateway's keys.
    """

    folder: Path
    config: SiteConfig
    now: Callable[[], float]
    socket_only: bool = False


Check = Callable[[Examined], Iterator[Diagnosis]]
"""Yields findings; an exception becomes a further finding, a FAIL."""


def examined_safely(name: str, check: Check, site: Examined) -> Iterator[Diagnosis]:
    """Yield the check's findings, and any exception as a FAIL: the doctor must cope with a broken site."""
    try:
        yield from check(site)
    except (EnclaveError, OSError) as error:
        yield Diagnosis(name, DiagnosisLevel.FAIL, one_line(error), "fix the problem that the message names")
    except ImportError as error:
        yield Diagnosis(
            name, DiagnosisLevel.FAIL, f"{error.name} is not installed", "pip install 'aegis-fl[site,flower,nvflare]'"
        )
