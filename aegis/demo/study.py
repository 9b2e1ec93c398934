"""Chooses the demonstration's study, and runs it as :func:`aegis.studies.run_study` runs any study."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from aegis.demo.notes import limits_of, notes_of
from aegis.demo.randhie_data import central_references
from aegis.demo.recipe import DemoOptions
from aegis.demo.setup import OPTIONS, create_demo_study
from aegis.errors import RunFolderError
from aegis.runs import RoundReport
from aegis.studies import Context, Simulation, Study, StudyResult, run_study
from coreason_enclave.system import point_link

LATEST_RUN, LATEST_STUDY = "latest", "latest-study"
_STUDIES, _PREFIX = "studies", "demo-"
_RUN = 1


def choose_study(root: Path, options: DemoOptions) -> tuple[Study, bool]:
    """Return the unfinished newest study if it has the same options, else a new study; and whether it is new.

    A new study creates new sites with their own budgets. It refunds and overwrites nothing of an earlier demonstration.

    Raises:
        AegisError: the study cannot be created; nothing of it stays.
        ConfigurationError: the data is missing or has a wrong hash.
    """
    latest = root / LATEST_STUDY
    if _options_of(latest) == options.to_dict() and not Study(latest).is_complete(_RUN):
        return Study(root / latest.readlink()), False
    study = create_demo_study(_free_name(root / _STUDIES), options)
    point_link(latest, str(study.path.relative_to(root)))
    return study, True


def run_demo(
    root: Path,
    study: Study,
    options: DemoOptions,
    *,
    observe: Callable[[RoundReport], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> StudyResult:
    """Run the study, or go on with its run, and let ``root/latest`` point to the finished run.

    Raises:
        AegisError: wrong options, or a paused run.
    """
    result = run_study(
        study,
        runtime=options.runtime,
        simulation=Simulation(options.seed, options.attackers, options.repeats),
        context=Context(lambda: central_references(options.unit), notes_of(options), limits_of(options)),
        observe=observe,
        say=say,
    )
    point_link(root / LATEST_RUN, str(result.run.path.relative_to(root)))
    return result


def _options_of(study: Path) -> object:
    try:
        return json.loads((study / OPTIONS).read_bytes())
    except (OSError, ValueError):
        return None


def _free_name(studies: Path) -> Path:
    """Return the name of a new study by the present second, and remove what a killed creation left behind."""
    for stale in studies.glob(f".{_PREFIX}*.new"):
        shutil.rmtree(stale, ignore_errors=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        path = studies / f"{_PREFIX}{stamp}{suffix}"
        if not path.exists():
            return path
    raise RunFolderError(f"{studies} already has too many studies from this second: try again")
