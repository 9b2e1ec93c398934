"""``aegis run STUDY``: what the command prints, and its refusals."""

# ruff: noqa: E501 - one line a case

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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


def test_job_file_has_no_options_of_a_study_and_needs_a_federation(folder: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("")
    assert "--federation is missing" in invoke("run", job).stderr
    assert "need the folder of a study" in invoke("run", job, "--set", "rounds=1").stderr


def replaced(name: str, before: str, after: str) -> Callable[[], None]:
    def change() -> None:
        path = Path("s", name)
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after, 1))

    return change


def gone(name: str) -> Callable[[], None]:
    def change() -> None:
        path = Path("s", name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


class Unusable(NamedTuple):
    what: str
    change: Callable[[], None]
    answer: str


_NORTH = "s/sites/north/site.toml"
UNUSABLE = [
    Unusable("study.toml broken", replaced("study.toml", "[job]", "[job"), "s/study.toml is not TOML: Expected ']' at the end of a table declaration (at line 6, column 5)"),
    Unusable("study.toml empty", lambda: Path("s/study.toml").write_text("version = 1\n[job]\n") and None, "s/study.toml: job.job_id is required; job.min_clients is required; job.rounds is required; job.strategy is required; job.privacy is required; job.dataset_id is required; job.model_arch is required"),
    Unusable("study.toml of another version", replaced("study.toml", "version = 1", "version = 7"), "s/study.toml: version must be 1"),
    Unusable("study.toml no text", lambda: Path("s/study.toml").write_bytes(b"\xff\xfe") and None, "s/study.toml, line 1: not UTF-8 (invalid start byte)"),
    Unusable("study.toml missing", gone("study.toml"), "s holds no study.toml: `aegis init s` creates a study"),
    Unusable("unknown field", replaced("study.toml", "learning_rate", "learnin_rate"), "s/study.toml: job.learnin_rate is not a known field, did you mean 'learning_rate'?"),
    Unusable("unknown field in a table", replaced("study.toml", "target_epsilon", "target_epsilom"), "s/study.toml: job.privacy.target_epsilom is not a known field, did you mean 'target_epsilon'?"),
    Unusable("unknown field at the top", replaced("study.toml", "version = 1", "version = 1\nfedration = 'x'"), "s/study.toml: fedration is not a known field, did you mean 'federation'?"),
    Unusable("another federation that is none", replaced("study.toml", "version = 1", "version = 1\nfederation = '../x'"), "s/study.toml: federation = '../x', and s/../x holds no federation.toml"),
    Unusable("dictionary missing", gone("dictionary.toml"), "s/dictionary.toml is missing: put it back; each run keeps a copy, runs/<n>/dictionary.toml"),
    Unusable("dictionary broken", replaced("dictionary.toml", "version", "versio ="), "s/dictionary.toml is not TOML: Invalid value (at line 2, column 10)"),
    Unusable("dictionary with an unknown field", replaced("dictionary.toml", "[[features]]\n", "[[features]]\nlowest = 3\n"), "s/dictionary.toml: features.0.lowest is not a known field, did you mean 'low'?"),
    Unusable("federation missing", gone("federation.toml"), "s is not a federation folder: cannot read s/federation.toml: No such file or directory"),
    Unusable("federation broken", replaced("federation.toml", "profile", "profile ="), "s/federation.toml is not TOML: Invalid value (at line 2, column 11)"),
    Unusable("site with a lower cap", replaced("sites/north/site.toml", "job_epsilon = 60.0", "job_epsilon = 3.0"), f"{_NORTH}: lineage 'north/doses' says job_epsilon = 3.0, its ledger 60.0: write 60.0 back; raise caps with `coreason-enclave policy raise-cap`, or register other rows as a lineage of another name"),
    Unusable("site with a higher cap", replaced("sites/north/site.toml", "\nepsilon = 60.0", "\nepsilon = 90.0"), f"{_NORTH}: lineage 'north/doses' says epsilon = 90.0, its ledger 60.0: write 60.0 back; raise caps with `coreason-enclave policy raise-cap`, or register other rows as a lineage of another name"),
    Unusable("site of another unit", replaced("sites/north/site.toml", 'unit = "person"', 'unit = "record"'), f"{_NORTH}: lineage 'north/doses' says unit = \"record\", its ledger \"person\": write \"person\" back; register other rows as a lineage of another name"),
    Unusable("site broken", replaced("sites/north/site.toml", "version = 1", "version = "), f"{_NORTH} is not TOML: Invalid value (at line 1, column 11)"),
    Unusable("site with an unknown field", replaced("sites/north/site.toml", "job_epsilon", "job_epsilom"), f"{_NORTH}: lineages.0.job_epsilon is required; lineages.0.job_epsilom is not a known field, did you mean 'job_epsilon'?"),
    Unusable("site.toml missing", gone("sites/north/site.toml"), f"{_NORTH} is missing: put the folder of the site 'north' back, or make a new study with `aegis init`"),
    Unusable("no sites", gone("sites"), f"{_NORTH} is missing: put the folder of the site 'north' back, or make a new study with `aegis init`"),
]  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE, ids=lambda case: case.what.replace(" ", "-"))
def test_an_unusable_study_is_one_line_and_starts_no_run(
    case: Unusable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "s", ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(tmp_path)
    case.change()
    before = sorted(Path("s").rglob("*"))

    answer = invoke("run", "s", "--runtime", "in-process")

    assert (answer.exit_code, answer.stdout, answer.stderr.strip()) == (2, "", f"error: {case.answer}")
    assert sorted(Path("s").rglob("*")) == before


def test_without_sites_no_process_starts_either(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "s", ignore=shutil.ignore_patterns("runs", "sites"))
    monkeypatch.chdir(tmp_path)

    answer = invoke("run", "s")

    assert (answer.exit_code, answer.stdout) == (2, "")
    assert f"{_NORTH} is missing" in answer.stderr
    assert not Path("s/runs").exists()


def test_a_path_that_is_no_folder_of_a_study_is_refused(folder: Path, tmp_path: Path) -> None:
    job = folder / "study.toml"
    assert f"{job} is a study's job: name the study's folder, aegis run {folder}" in invoke("run", job).stderr
    assert f"{tmp_path} holds no study.toml: `aegis init {tmp_path}`" in invoke("run", tmp_path).stderr
    assert "Path 'nowhere' does not exist" in invoke("run", "nowhere").stderr
