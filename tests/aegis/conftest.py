"""A small study of a patient table, run once in this process, and copies of it to be spoilt."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from aegis.runs import RunPlan, execute
from aegis.studies import SplitPlan, Study, StudyOptions, create_study

_HEADER = "patient,age,site,risk,sick"


def table(rows: int, seed: int) -> str:
    """Return rows of patients with two visits each; risk and sick rise with age."""
    chance = np.random.default_rng(seed)
    lines = [_HEADER]
    for number in range(rows):
        age = chance.integers(20, 90)
        sick = int(chance.uniform() < (age - 20) / 70)
        lines.append(f"p{seed}-{number // 2},{age},{'ab'[number % 2]},{age * 2 + chance.integers(0, 5)},{sick}")
    return "\n".join(lines) + "\n"


def ran_study(root: Path, label: str = "sick", *changes: str) -> Study:
    """Create a study of two sites below ``root`` and run it for two rounds."""
    files = []
    for number, name in enumerate(("north", "south"), start=1):
        files.append(root / f"{name}.csv")
        files[-1].write_text(table(80, number))
    split = SplitPlan(files, label, "patient", None, 0.2)
    study = Study(create_study(root / "study", StudyOptions("small", split)).folder)
    folder, job = study.choose_run(study.job(["rounds=2", "average_last_rounds=1", *changes]), {})
    execute(job, RunPlan(study.federation(), folder))
    return study


@pytest.fixture(scope="session")
def small_study_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran_study(tmp_path_factory.mktemp("small")).path.parent


@pytest.fixture
def small_study(small_study_once: Path, tmp_path: Path) -> Study:
    """A copy of the study: run 1 is finished; north.csv and south.csv lie beside its folder."""
    shutil.copytree(small_study_once, tmp_path / "copy", symlinks=True)
    return Study(tmp_path / "copy" / "study")
