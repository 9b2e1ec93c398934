"""What a check found, in the words of somebody who has to act on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coreason_enclave.command_line import one_line
from coreason_enclave.errors import EnclaveError
from coreason_enclave.policy import SiteConfig

__all__ = ["Check", "Diagnosis", "DiagnosisLevel", "Examined", "examined_safely"]


class DiagnosisLevel(StrEnum):
    """``ok``; ``warn``: it works, or will for now; ``FAIL``: the site cannot take part like this."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Diagnosis:
    """One line: what was looked at, how it is, and what to do where it is not ``ok``."""

    check: str
    verdict: DiagnosisLevel
    found: str
    to_do: str = ""


@dataclass(frozen=True)
class Examined:
    """The site that is looked at. ``now`` is Unix seconds.

    ``socket_only``: its agent answers on its socket alone, and needs neither gateway nor the keys for it.
    """

    folder: Path
    config: SiteConfig
    now: Callable[[], float]
    socket_only: bool = False


Check = Callable[[Examined], Iterator[Diagnosis]]
"""Yields findings; whatever it raises is one more, and a FAIL."""


def examined_safely(name: str, check: Check, site: Examined) -> Iterator[Diagnosis]:
    """The check's findings, and what it raised as a FAIL: a broken site is what it is here for."""
    try:
        yield from check(site)
    except (EnclaveError, OSError) as error:
        yield Diagnosis(name, DiagnosisLevel.FAIL, one_line(error), "see the message")
    except ImportError as error:
        yield Diagnosis(
            name, DiagnosisLevel.FAIL, f"{error.name} is not installed", "pip install 'aegis-fl[site,flower,nvflare]'"
        )
