"""docs/OPERATIONS.md is run: each command that it gives in a site's folder, one after the other, in such a folder."""

from __future__ import annotations

import re
import shlex
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coreason_enclave.datasets import DataDictionary, declared_schema
from coreason_enclave.ledger import SqliteLedger
from coreason_enclave.main import main
from coreason_enclave.policy import load_site_config
from tests.conftest import write_rows
from tools import check_docs

BLOCKS = check_docs.parse(Path("docs/OPERATIONS.md").resolve().read_text(encoding="utf-8")).blocks
IN_THE_FOLDER = ("--config site.toml", "ledger.sqlite")


def commands() -> list[list[str]]:
    """Return the arguments of each command that is given in a site's folder."""
    lines = [line for block in BLOCKS if block.info == "sh" for line in block.body.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if any(place in line for place in IN_THE_FOLDER)]
    assert {program for program, *_ in split} == {"coreason-enclave"}
    return [arguments for _, *arguments in split]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's own site.toml of an unattested site, rows to declare, and a study's dictionary."""
    settings, unattested = (
        next(block.body for block in BLOCKS if block.info == "toml" and block.body.startswith(start))
        for start in (
            "version = 1\nsite_id",
            'profile = "unattested"\nattester = "unattested"                # this site',
        )
    )
    accepted = re.findall(r"^unattested_coordinators.*$", unattested, re.MULTILINE)[0]
    text = settings.partition("[[lineages]]")[0].replace("[policy]\n", f"[policy]\n{accepted}\n", 1)
    text = re.sub(r'^(profile|attester) = "\w+"', r'\1 = "unattested"', text, flags=re.MULTILINE)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "site.toml").write_text("lineages = []\n" + text)
    write_rows(tmp_path / "export", public=False, seed=2, persons=120)
    source = next((tmp_path / "export" / "data").rglob("dataset.toml"))
    (folder / "visits.csv").write_bytes((source.parent / "rows.csv").read_bytes())
    dataset_id = source.parent.relative_to(tmp_path / "export" / "data").as_posix()
    declared = declared_schema(tmp_path / "export" / "data", dataset_id)
    of_study = declared.model_copy(update={"dataset_id": "clinic/visits"})
    (folder / "dictionary.toml").write_text(DataDictionary.of(of_study).write())
    (folder / "data").mkdir()
    monkeypatch.chdir(folder)
    assert run("init", "--config", "site.toml").exit_code == 0
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_command_in_a_site_folder_works_in_the_order_of_the_page(site: Path) -> None:
    said = {}
    for arguments in commands():
        result = run(*arguments)
        running = 2 if arguments[0] == "status" else 0  # no agent runs here: tests of the agent ask one that does
        assert result.exit_code == running, f"$ coreason-enclave {shlex.join(arguments)}\n{result.output}"
        words = [word for word in arguments if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
        said[" ".join(words[:2]) if arguments[0] in ("dataset", "policy", "ledger") else arguments[0]] = result.output
    of_datasets = {f"dataset {name}" for name in ("init", "check", "register", "list", "show")}
    of_policy = {f"policy {name}" for name in ("add-participant", "allow-model", "raise-cap", "show")}
    assert {*of_datasets, *of_policy, "init", "doctor", "status", "ledger show", "ledger verify"} <= said.keys()

    assert said["dataset check"] == "yes\n"
    assert "no agent is running" in said["status"]
    assert "FAIL" not in said["doctor"]
    assert "data clinic/visits: opens; matches dataset.toml and site.toml" in said["doctor"]
    policy = load_site_config(site / "site.toml")
    assert "MLP" in policy.policy.model_archs
    assert "clinic-3" in policy.policy.participants
    assert policy.lineage_of("clinic/visits").epsilon == 8
    with closing(SqliteLedger(site / "backup.sqlite", must_exist=True)) as copy:
        assert copy.lineage_claim("clinic-1/visits").spent_pico == 0
