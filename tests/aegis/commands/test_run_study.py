"""``aegis run STUDY``: what the command prints, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aegis.studies import SplitPlan, StudyOptions, create_study
from coreason_enclave.schemas import Task
from tests.aegis.commands.conftest import invoke
from tests.aegis.studies.conftest import SMALL, write_rows

_CHANGES = [part for change in SMALL for part in ("--set", change)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    split = SplitPlan(write_rows(root / "files", "binary"), "outcome", "patient", None, 0.3)
    return create_study(root / "study", StudyOptions("doses", split, Task.BINARY)).folder


def test_command_ends_with_utility_price_summary_and_the_next_command(folder: Path) -> None:
    answer = invoke("run", folder, "--runtime", "in-process", "--no-baseline", *_CHANGES)

    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert any(line.startswith("auc ") and "95 % interval" in line for line in lines)
    assert any("epsilon" in line and "spent" in line and "left" in line for line in lines)
    assert any(line.startswith(f"summary: {folder / 'runs/latest/summary.md'}") for line in lines)
    assert lines[-1] == f"next: aegis verify {folder / 'runs/latest'}"
    assert invoke("verify", folder / "runs/latest").exit_code == 0


def test_json_is_one_object_with_the_figures(folder: Path) -> None:
    answer = invoke("run", folder, "--runtime", "in-process", "--no-baseline", "--json", *_CHANGES)

    assert answer.exit_code == 0, answer.output
    figures = json.loads(answer.stdout)
    assert set(figures["measures"]) == {"accuracy", "auc", "loss"}
    assert figures["no_baseline"] == "none was asked for (--no-baseline)"
    assert figures["sites"]["north"]["spent"] == figures["epsilon"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "learning_rat=0.1"], "learning_rat"),
        (["--set", "privacy.target_epsilon=much"], "target_epsilon"),
        (["--set", "job_id=other"], "job_id"),
        (["--federation", "."], "a study has its own sites and runs"),
        (["--out", "elsewhere"], "a study has its own sites and runs"),
        (["--runtime", "in-process", "--poc"], "need --runtime nvflare"),
    ],
)
def test_wrong_option_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], words: str) -> None:
    before = sorted(folder.glob("runs/*"))
    answer = invoke("run", folder, *arguments)

    assert answer.exit_code == 2
    assert words in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert sorted(folder.glob("runs/*")) == before


def test_folder_without_a_study_and_job_without_federation_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "aegis init" in invoke("run", tmp_path).stderr
    assert "--federation is missing" in invoke("run", folder / "study.toml").stderr
    assert "need the folder of a study" in invoke("run", folder / "study.toml", "--set", "rounds=1").stderr
