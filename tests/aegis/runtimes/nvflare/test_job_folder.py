"""A job as FLARE takes it: configuration alone, which FLARE's own validation accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nvflare.fuel.utils.zip_utils import zip_directory_to_bytes
from nvflare.private.fed.server.job_meta_validator import JobMetaValidator

from aegis.errors import RunFolderError
from aegis.federation.job_files import load_job
from aegis.runtimes.nvflare.job_folder import FlareJob, write_job_folder
from coreason_enclave.federation.executor import TASKS

SITES = ("clinic-1", "clinic-2")


@pytest.fixture
def written(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Path:
    job = federation_at(tmp_path / "sites").job()
    write_job_folder(tmp_path / "study", FlareJob(job, run="study-1", sites=SITES, min_clients=2))
    return tmp_path / "study"


def test_flare_accepts_it_as_a_job_without_code(written: Path) -> None:
    data = zip_directory_to_bytes("", str(written))

    valid, error, meta = JobMetaValidator().validate("study", data)

    assert valid, error
    assert "byoc" not in meta
    assert meta["deploy_map"] == {"coordinator": ["server"], "site": list(SITES)}


def test_it_is_text_and_names_no_path_no_key_and_no_address(written: Path) -> None:
    files = sorted(path for path in written.rglob("*") if path.is_file())

    assert {path.suffix for path in files} == {".json", ".yaml"}
    for path in files:
        text = path.read_text()
        assert str(written.parent) not in text
        assert "://" not in text
        assert "PRIVATE" not in text


def test_only_two_classes_are_named_and_they_take_no_path(written: Path) -> None:
    server = json.loads((written / "coordinator/config/config_fed_server.json").read_bytes())
    site = json.loads((written / "site/config/config_fed_client.json").read_bytes())

    assert [(each["path"], each["args"]) for each in server["workflows"]] == [
        ("aegis.runs.nvflare_server.CoordinatorWorkflow", {"run": "study-1", "readmit": []})
    ]
    assert [each["executor"] for each in site["executors"]] == [
        {"path": "coreason_enclave.federation.executor.CoreasonExecutor", "args": {}}
    ]


def test_each_task_that_the_executor_answers_is_given_to_it_once(written: Path) -> None:
    """FLARE's client refuses a configuration that names a task twice."""
    site = json.loads((written / "site/config/config_fed_client.json").read_bytes())

    assert sorted(site["executors"][0]["tasks"]) == sorted(TASKS)


def test_the_job_in_it_is_the_job(written: Path, federation_at: Callable[[Path], Any], tmp_path: Path) -> None:
    assert load_job(written / "coordinator/config/job.yaml") == federation_at(tmp_path / "sites").job()


def test_a_folder_that_is_there_is_not_written_over(written: Path, federation_at: Callable[[Path], Any]) -> None:
    before = {path: path.read_bytes() for path in written.rglob("*") if path.is_file()}

    with pytest.raises(RunFolderError, match="exists"):
        write_job_folder(written, FlareJob(federation_at(written).job(), run="other", sites=SITES))

    assert {path: path.read_bytes() for path in written.rglob("*") if path.is_file()} == before
