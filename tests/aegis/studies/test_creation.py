"""A study is created whole or not at all, simulated and marked as such."""

from __future__ import annotations

import gzip
import hashlib
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from aegis.cli import main
from aegis.federation import FederationFolder
from aegis.studies import SplitPlan, Study, StudyOptions, create_study
from coreason_enclave.datasets import open_dataset
from coreason_enclave.policy import load_site_config
from coreason_enclave.schemas import Profile, Task
from tests.support.owner_rows import write_rows


def aegis(*arguments: str | Path, answers: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=answers)


def init(folder: Path, *arguments: str | Path, label: str = "outcome") -> dict[str, Any]:
    result = aegis("init", folder, *arguments, "--label", label, "--yes", "--json")
    assert result.exit_code == 0, result.output
    about: dict[str, Any] = json.loads(result.stdout)
    return about


def data(files: list[Path]) -> list[str | Path]:
    return [part for file in files for part in ("--data", file)]


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def test_a_study_has_simulated_sites_public_rows_and_private_keys(tmp_path: Path) -> None:
    files = write_rows(tmp_path / "files", "binary")
    split = SplitPlan(files, "outcome", "patient", None, 0.3)
    created = create_study(tmp_path / "study", StudyOptions("doses", split))

    federation = FederationFolder(created.folder).config()
    assert federation.profile is Profile.DEVELOPMENT
    for site in ("north", "south"):
        config = load_site_config(created.folder / "sites" / site / "site.toml")
        assert (config.profile, config.attester) == (Profile.DEVELOPMENT, "simulated")
        assert [lineage.public for lineage in config.lineages] == [True]
        persons = open_dataset(created.folder / "sites" / site / "data", "study/rows").num_units
        assert config.lineages[0].nominal_units == persons
        assert federation.delta <= 1 / (10 * persons)
        declaration = (created.folder / "sites" / site / "data" / "study" / "rows" / "dataset.toml").read_text()
        assert declaration.startswith("# SUGGESTED FROM ROWS")
        assert 'why = "range suggested from rows"' in declaration
    keys = list(created.folder.rglob("*.key"))
    assert keys
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in keys)
    assert Study(created.folder).job() == created.job


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    files = write_rows(tmp_path / "files", "binary")
    init(tmp_path / "study", *data(files))
    before = tree(tmp_path)

    again = aegis("init", tmp_path / "study", *data(files), "--label", "outcome", "--yes")

    assert again.exit_code == 2
    assert tree(tmp_path) == before


@pytest.mark.parametrize("step", ["split_rows", "suggest", "declare_evaluation_set", "create_site", "write_study"])
def test_a_study_that_fails_half_way_leaves_nothing(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_rows(tmp_path / "files", "binary")
    before = tree(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"aegis.studies.creation.{step}", broken)
    result = aegis("init", tmp_path / "study", *data(files), "--label", "outcome", "--person", "patient", "--yes")

    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert tree(tmp_path) == before


def test_files_of_other_kinds_make_the_same_study(tmp_path: Path) -> None:
    north, south = write_rows(tmp_path / "files", "binary")
    plain = init(tmp_path / "plain", *data([north, south]), "--person", "patient")
    packed = tmp_path / "files" / "north.csv.gz"
    packed.write_bytes(gzip.compress(north.read_bytes()))
    parquet = tmp_path / "files" / "south.parquet"
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(south), parquet)

    other = init(tmp_path / "other", *data([packed, parquet]), "--person", "patient")

    assert {**other, "study": ""} == {**plain, "study": ""}


def test_one_file_is_split_by_the_column_of_sites(tmp_path: Path) -> None:
    north, south = write_rows(tmp_path / "files", "binary")
    lines = [f"{line},{site}" for file, site in ((north, "A"), (south, "B")) for line in file.read_text().split()[1:]]
    one = tmp_path / "one.csv"
    one.write_text("\n".join(["patient,age,dose,outcome,hospital", *lines]) + "\n")

    about = init(tmp_path / "study", "--data", one, "--site-column", "hospital", "--person", "patient")

    assert sorted(about["sites"]) == ["a", "b"]
    assert about["inputs"] == ["age", "dose"]


def test_files_without_a_line_of_names_take_them_from_the_command(tmp_path: Path) -> None:
    files = write_rows(tmp_path / "files", "binary")
    for file in files:
        file.write_text(file.read_text().partition("\n")[2])

    bare = ["--no-header", "--columns", "patient,age,dose,outcome"]
    about = init(tmp_path / "study", *data(files), "--person", "patient", *bare)
    named = Study(tmp_path / "study").dictionary()

    init(tmp_path / "other", *data(write_rows(tmp_path / "files", "binary")), "--person", "patient")
    assert about["inputs"] == ["age", "dose"]
    assert named == Study(tmp_path / "other").dictionary()


def test_arrays_make_a_study_whose_examples_keep_their_shape(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = []
    for site in ("north", "south"):
        files.append(tmp_path / f"{site}.npz")
        np.savez(files[-1], x=random.uniform(0, 1, (40, 1, 8, 8)), y=random.integers(0, 3, 40))

    about = init(tmp_path / "study", *data(files), "--model", "CNN", label="y")

    assert about["task"] == "multiclass"
    assert Study(tmp_path / "study").job().model_args == {"in_channels": 1, "height": 8, "width": 8, "outputs": 3}


@pytest.mark.parametrize(
    ("task", "label", "options"),
    [
        (Task.REGRESSION, "regression", []),
        (Task.COUNT, "count", ["--task", "count"]),
        (Task.MULTICLASS, "multiclass", []),
    ],
)
def test_the_label_decides_the_task(task: Task, label: str, options: list[str], tmp_path: Path) -> None:
    about = init(tmp_path / "study", *data(write_rows(tmp_path / "files", label)), "--person", "patient", *options)

    assert about["task"] == task.value


def test_survival_and_several_labels_take_several_columns(tmp_path: Path) -> None:
    for site, start in (("north", 0), ("south", 50)):
        rows = [f"{20 + n},{n + start},{n % 2},{n % 3 == 0:d}" for n in range(50)]
        (tmp_path / f"{site}.csv").write_text("\n".join(["age,days,died,ill", *rows]) + "\n")
    files = data([tmp_path / "north.csv", tmp_path / "south.csv"])

    survival = init(
        tmp_path / "s1", *files, "--task", "survival", "--event", "died", "--cuts", "30,60,90", label="days"
    )
    several = init(tmp_path / "s2", *files, "--task", "multilabel", "--label", "ill", label="died")

    assert (survival["task"], several["task"]) == ("survival", "multilabel")
    assert tomllib.loads((tmp_path / "s1" / "dictionary.toml").read_text())["label"]["cuts"] == [30, 60, 90]
    assert several["inputs"] == ["age", "days"]


def test_held_out_rows_may_come_from_a_file(tmp_path: Path) -> None:
    north, south = write_rows(tmp_path / "files", "binary")
    test = tmp_path / "test.csv"
    test.write_text(north.read_text().replace("north-", "test-"))

    about = init(tmp_path / "study", *data([north, south]), "--person", "patient", "--holdout", test)

    assert about["held_out_rows"] == 80
    assert about["sites"]["north"]["rows"] == 80


def test_the_owner_is_asked_for_what_is_publicly_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aegis.commands.init._at_a_terminal", lambda: True)
    files = write_rows(tmp_path / "files", "binary")

    result = aegis(
        "init", tmp_path / "study", *data(files), "--label", "outcome", "--person", "patient", answers="x\n0 120\n-\n"
    )

    assert result.exit_code == 0, result.output
    assert "'x' is no range" in result.output
    (feature,) = tomllib.loads((tmp_path / "study" / "dictionary.toml").read_text())["features"]
    assert (feature["name"], feature["low"], feature["high"], feature["why"]) == ("age", 0, 120, "stated by the owner")


def test_enter_keeps_every_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aegis.commands.init._at_a_terminal", lambda: True)
    options = [*data(write_rows(tmp_path / "files", "binary")), "--label", "outcome", "--person", "patient"]
    assert aegis("init", tmp_path / "taken", *options, "--yes").exit_code == 0

    asked = aegis("init", tmp_path / "study", *options, answers="\n\n")

    assert asked.exit_code == 0, asked.output
    assert "Enter keeps the suggestion" in asked.output
    assert "age, suggested 20 80" in asked.output
    assert Study(tmp_path / "study").dictionary() == Study(tmp_path / "taken").dictionary()


def test_a_review_that_ends_without_an_answer_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aegis.commands.init._at_a_terminal", lambda: True)
    options = [*data(write_rows(tmp_path / "files", "binary")), "--label", "outcome", "--person", "patient"]

    asked = aegis("init", tmp_path / "study", *options, answers="\n")

    assert asked.exit_code != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]


def test_the_review_names_a_column_that_is_left_out_why_and_what_to_do(tmp_path: Path) -> None:
    for site in ("north", "south"):
        rows = [f"{n},{n + 20}.57 mm,{n % 2}" for n in range(30)]
        (tmp_path / f"{site}.csv").write_text("\n".join(["age,radius,sick", *rows]) + "\n")
    why = (
        "cells like '20.57 mm' are text: remove the unit 'mm' from each cell, "
        'or declare the column with kind = "category"'
    )
    options = [*data([tmp_path / "north.csv", tmp_path / "south.csv"]), "--label", "sick", "--yes"]

    read = aegis("init", tmp_path / "read", *options)
    called = aegis("init", tmp_path / "called", *options, "--json")

    assert f"left out: radius: {why}\n" in read.stdout
    (row,) = [line for line in read.stdout.splitlines() if line.startswith("│ radius")]
    assert [cell.strip() for cell in row.strip("│").split("│")][:3] == ["radius", "left out", "see below"]
    assert json.loads(called.stdout)["left_out"] == {"radius": why}
    assert json.loads(called.stdout)["inputs"] == ["age"]


def test_a_study_over_a_federation_copies_no_row(tmp_path: Path) -> None:
    files = write_rows(tmp_path / "files", "binary")
    assert aegis("federation", "init", tmp_path / "clinics", "--delta", "1e-5").exit_code == 0

    init(tmp_path / "study", *data(files), "--person", "patient", "--federation", tmp_path / "clinics")
    init(tmp_path / "own", *data(files), "--person", "patient", "--profile", "unattested")

    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["dictionary.toml", "study.toml"]
    assert Study(tmp_path / "study").federation().config() == FederationFolder(tmp_path / "clinics").config()
    assert Study(tmp_path / "own").federation().config().profile is Profile.UNATTESTED
    assert list((tmp_path / "own").rglob("*.csv")) == []
