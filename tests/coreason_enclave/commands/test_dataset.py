"""A dataset is declared, checked and registered by command; only yes, no and a reason code are meant to leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coreason_enclave.agent.doctor import host
from coreason_enclave.agent.doctor.findings import Examined
from coreason_enclave.datasets import SUGGESTED, DataDictionary, declared_schema
from coreason_enclave.main import main
from coreason_enclave.policy import load_site_config
from tests.conftest import DATASET, SmallSite, write_rows

REGISTER = ("--nominal-units", 100, "--epsilon", 6, "--delta", 1e-5, "--job-epsilon", 3, "--job-delta", 1e-5)


@pytest.fixture
def small(federation: Any) -> SmallSite:
    site: SmallSite = federation.create()
    return site


@pytest.fixture
def rows(small: SmallSite) -> Path:
    return small.folder / "data" / DATASET / "rows.csv"


def run(site: SmallSite, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["dataset", *map(str, arguments), "--config", str(site.folder)])


def drafted(site: SmallSite, rows: Path, *more: object) -> Path:
    result = run(site, "init", rows, "--dataset-id", "clinic/new", *more)
    assert result.exit_code == 0, result.output
    return site.folder / "data/clinic/new/dataset.toml"


def test_a_draft_from_rows_is_marked_and_reads_the_rows(small: SmallSite, rows: Path) -> None:
    draft = drafted(small, rows, "--label", "visited", "--person", "patient")
    assert SUGGESTED in draft.read_text()
    assert all(
        SUGGESTED in line for line in draft.read_text().splitlines() if line.startswith(("low", "high", "classes"))
    )
    assert run(small, "check", "clinic/new").exit_code == 0
    again = run(small, "init", rows, "--dataset-id", "clinic/new", "--label", "visited")
    assert again.exit_code == 2
    assert "exists" in again.output


def test_a_draft_from_a_dictionary_takes_nothing_from_rows(small: SmallSite, rows: Path, tmp_path: Path) -> None:
    schema = declared_schema(small.folder / "data", DATASET).model_copy(update={"dataset_id": "clinic/new"})
    dictionary = tmp_path / "dictionary.toml"
    dictionary.write_text(DataDictionary.of(schema).write())
    draft = drafted(small, rows, "--dictionary", dictionary)
    assert SUGGESTED not in draft.read_text()
    assert DataDictionary.of(declared_schema(small.folder / "data", "clinic/new")) == DataDictionary.of(schema)
    assert run(small, "check", "clinic/new", "--dictionary", dictionary).exit_code == 0
    draft.write_text(draft.read_text().replace("high = 10.0", "high = 12.0", 1))
    result = run(small, "check", "clinic/new", "--dictionary", dictionary)
    assert (result.exit_code, "the dictionary says 10.0" in result.output) == (3, True)


def test_only_yes_or_no_and_a_code_is_for_the_coordinator(small: SmallSite, rows: Path) -> None:
    assert run(small, "check", DATASET, "--for-coordinator").output == "yes\n"
    rows.write_text("patient,age,income,years,visited\np1,secret,2,3,1\n")
    result = run(small, "check", DATASET, "--for-coordinator")
    assert (result.exit_code, result.output) == (3, "no dataset_schema\n")
    assert json.loads(run(small, "check", "--json").output)["datasets"][0]["problems"]
    assert run(small, "check", "clinic/none", "--for-coordinator").output == "no dataset_unknown\n"


def test_registering_needs_numbers_reviewed_bounds_and_the_same_flag(small: SmallSite, rows: Path) -> None:
    draft = drafted(small, rows, "--label", "visited", "--person", "patient")
    before = (small.folder / "site.toml").read_bytes()
    for arguments, words in (
        (("--nominal-units", 100), "--epsilon, --delta, --job-epsilon, --job-delta is missing"),
        ((*REGISTER, "--public"), "private: leave --public out"),
        (REGISTER, "suggested from rows"),
    ):
        result = run(small, "register", "clinic/new", *arguments)
        assert (result.exit_code, words in result.output) == (2, True), result.output
    assert (small.folder / "site.toml").read_bytes() == before
    draft.write_text(draft.read_text().replace(f"# {SUGGESTED}", "").replace("public = false", "public = true"))
    result = run(small, "register", "clinic/new", *REGISTER, "--public")
    assert result.exit_code == 0, result.output
    entry = load_site_config(small.folder / "site.toml").lineage_of("clinic/new")
    assert (entry.unit, entry.nominal_units, entry.public) == ("person", 100, True)
    assert "not in the ledger yet" in run(small, "list").output
    assert "100.0% left" in run(small, "show", DATASET).output
    small.open().close()
    assert "not in the ledger yet" not in run(small, "list").output


def test_control_characters_of_a_hostile_dictionary_reach_no_terminal(small: SmallSite, tmp_path: Path) -> None:
    entry = '[[features]]\nname = "{}"\nlow = 0.0\nhigh = 1.0\n'
    features = "".join(entry.format(f"c{n}") for n in range(10_000)) + entry.format("\\u001b[2Jx")
    dictionary = tmp_path / "dictionary.toml"
    dictionary.write_text(
        f'version = 1\ndataset_id = "{DATASET}"\nunit = "person"\nlabel = {{ column = "v", classes = 2 }}\n{features}'
    )
    result = run(small, "check", DATASET, "--dictionary", dictionary)
    assert result.exit_code in (2, 3)
    assert not isinstance(result.exception, AssertionError | TypeError | KeyError)
    assert "\x1b" not in result.output


def test_the_doctor_tells_no_number_of_private_rows(small: SmallSite, rows: Path) -> None:
    rows.write_text("patient,age,income,years,visited\n" + "p1,x,2,3,1\n" * 143)
    (public,) = host.data(Examined(small.folder, small.config, lambda: 0.0))
    assert "143" in public.found
    entry = small.config.lineages[0].model_copy(update={"public": False})
    private = small.config.model_copy(update={"lineages": (entry,)})
    (finding,) = host.data(Examined(small.folder, private, lambda: 0.0))
    assert finding.verdict == "FAIL"
    assert not any(each.isdigit() for each in finding.found)


WRONG_CELL, FEW_PERSONS, UNKNOWN_CLASS, RAGGED = "p{0},x,2,3,1", "p1,1,2,3,1", "p{0},1,2,3,{0}7", "p{0},1,2"


@pytest.mark.parametrize("row", [WRONG_CELL, FEW_PERSONS, UNKNOWN_CLASS, RAGGED])
@pytest.mark.parametrize("registered", [False, True], ids=["private", "public in site.toml alone"])
def test_doctor_and_check_say_the_same_of_7_and_of_143_wrong_private_rows(
    federation: Any, row: str, registered: bool
) -> None:
    profile = {} if registered else {"profile": "unattested", "attester": "unattested"}
    site: SmallSite = federation.create(lineage={"public": registered}, policy={"min_units": 5}, **profile)
    place = site.folder / "data" / DATASET
    declaration = (place / "dataset.toml").read_text()
    (place / "dataset.toml").write_text(declaration.replace("public = true", "public = false"))
    assert "public = false" in (place / "dataset.toml").read_text()
    said = set()
    for rows in (7, 143):
        lines = "".join(row.format(number) + "\n" for number in range(rows))
        (place / "rows.csv").write_text(f"patient,age,income,years,visited\n{lines}")
        (finding,) = host.data(Examined(site.folder, site.config, lambda: 0.0))
        for_coordinator = run(site, "check", DATASET, "--for-coordinator")
        said.add((finding.found, finding.to_do, for_coordinator.output, for_coordinator.exit_code))
    ((found, _, output, code),) = said
    assert (output, code) == ("no dataset_schema\n", 3)
    assert not any(each.isdigit() for each in found)


def test_no_size_of_private_arrays_is_told_when_memory_runs_out(
    small: SmallSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 1.07 GiB for an array with shape (143000000, 1)")

    monkeypatch.setattr("coreason_enclave.datasets.reading.read_table", exhausted)
    entry = small.config.lineages[0].model_copy(update={"public": False})
    private = small.config.model_copy(update={"lineages": (entry,)})
    (finding,) = host.data(Examined(small.folder, private, lambda: 0.0))
    assert finding.verdict == "FAIL"
    assert not any(each.isdigit() for each in finding.found)
    result = run(small, "check", DATASET, "--for-coordinator")
    assert (result.exit_code, result.output) == (3, "no dataset_schema\n")


def test_a_site_without_a_dataset_is_warned(tmp_path: Path, federation: Any, small: SmallSite) -> None:
    write_rows(tmp_path, public=True, seed=1, persons=3)
    path = small.folder / "site.toml"
    path.write_text(path.read_text().split("[[lineages]]")[0].replace("version = 1", "version = 1\nlineages = []", 1))
    result = CliRunner().invoke(main, ["init", "--config", str(small.folder)])
    assert "no dataset is registered" in result.output
    result = run(small, "register", DATASET, *REGISTER, "--public")
    assert result.exit_code == 0, result.output


def test_a_draft_names_the_columns_that_it_leaves_out(small: SmallSite, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    lines = [f"{n},{n}.5 mm,{n % 2}" for n in range(30)]
    rows.write_text("\n".join(["age,radius,sick", *lines]) + "\n")
    result = run(small, "init", rows, "--dataset-id", "clinic/new", "--label", "sick")
    text = (small.folder / "data/clinic/new/dataset.toml").read_text()
    assert "left out 'radius': cells like '0.5 mm' are text: remove the unit 'mm' from each cell, or" in result.output
    assert "# left out: 'radius': cells like '0.5 mm' are text: remove the unit 'mm' from each cell, or" in text
    assert run(small, "check", "clinic/new").exit_code == 0
    assert "line 3" in run(small, "register", "clinic/new", *REGISTER).output
