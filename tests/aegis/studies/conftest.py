"""Tiny studies of one's own, one for each task: two sites, two rounds, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aegis.studies import SplitPlan, Study, StudyOptions, create_study
from coreason_enclave.schemas import Task
from tests.support.owner_rows import write_rows

SMALL = ["rounds=2", "average_last_rounds=1", "local_steps=2"]
"""Changes that make a job short."""


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Study]:
    """Return a maker of studies by task."""

    def make(label: str = "binary") -> Study:
        files = write_rows(tmp_path / "files", label)
        split = SplitPlan(files, "outcome", "patient", None, 0.3)
        return Study(create_study(tmp_path / "study", StudyOptions("doses", split, Task(label))).folder)

    return make
