"""Every task gives one model on every runtime, is measured by the task's own measures, and verifies.

In process for all tasks in the fast half; ``make test-all`` repeats each job on Flower, whose processes serve all jobs
in turn, and on NVIDIA FLARE.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegis.runs.connect import RuntimeName, connect_sites
from aegis.runs.coordinate import coordinate, open_log
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RunPlan, prepare
from aegis.runs.results import read_outcome
from aegis.runs.runner import execute
from aegis.runtimes.in_process import initial_model
from aegis.verification.findings import Conclusion
from aegis.verification.run_checks import verify_run
from coreason_enclave.schemas import FederationJob
from tests.conformance.runtimes import SEED, CarriedOut, FederationFolder, processes_naming, wait_for
from tests.conformance.tasks import OPTIONS, TASKS, declared, evaluate_on, found, job_changes

Small = Callable[[Path], Any]


def task_job(federation_at: Small, name: str, **changes: Any) -> FederationJob:
    quick = {"min_clients": 2, "rounds": 2, "round_deadline_s": 90.0, "momentum": 0.0, "local_steps": 2}
    job: FederationJob = federation_at(Path()).job(**{**quick, **job_changes(name), **changes})
    return job


def plan_of(runtime: RuntimeName, path: Path, name: str) -> RunPlan:
    return RunPlan(FederationFolder(path), RunFolder(path / f"run-{name}"), SEED, runtime=runtime)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory, federation_at: Small) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "founded"
    found(path, federation_at)
    return path


@pytest.fixture(scope="module")
def in_process(founded: Path, federation_at: Small) -> Callable[[str], Path]:
    """The run folder of a task's job in this process, made once."""
    path = founded.with_name("in-process")
    shutil.copytree(founded, path)

    def run(name: str) -> Path:
        plan = plan_of(RuntimeName.IN_PROCESS, path, name)
        if not plan.folder.path.exists():
            evaluate_on(path, name)
            execute(task_job(federation_at, name), plan)
        return plan.folder.path

    return run


@pytest.mark.parametrize("name", TASKS)
def test_a_job_of_each_task_verifies_and_states_the_measures_of_the_task(
    in_process: Callable[[str], Path], name: str
) -> None:
    run = in_process(name)
    outcome = RunFolder(run).read_json("outcome.json")
    assert outcome["metrics"].keys() == TASKS[name].measures
    assert all(np.isfinite(value) for value in outcome["metrics"].values())
    report = verify_run(run)
    assert report.conclusion is Conclusion.VERIFIED, report
    assert any("measured again" in finding.detail for finding in report.findings)


@pytest.mark.parametrize("name", TASKS)
def test_each_task_trains_every_parameter_of_its_model(in_process: Callable[[str], Path], name: str) -> None:
    folder = RunFolder(in_process(name))
    before, after = initial_model(folder.job()), read_outcome(folder).model
    assert before.keys() == after.keys()
    for key in before:
        assert np.abs(after[key] - before[key]).max() > 0, key


def test_the_labels_of_each_task_reach_the_model_in_their_own_form() -> None:
    forms = {name: (declared(name).label.y_dtype.name, declared(name).label.y_shape) for name in TASKS}
    assert forms == {
        "binary": ("int64", ()),
        "multiclass": ("int64", ()),
        "multilabel": ("float32", (2,)),
        "regression": ("float32", ()),
        "count": ("float32", ()),
        "survival": ("int64", (2,)),
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_task_changes_the_model_and_the_run_verifies(
    founded: Path, tmp_path: Path, federation_at: Small, in_process: Callable[[str], Path], option: str
) -> None:
    name, task = OPTIONS[option]
    shutil.copytree(founded, tmp_path / "sites-of-its-own")
    evaluate_on(tmp_path / "sites-of-its-own", name)
    plan = plan_of(RuntimeName.IN_PROCESS, tmp_path / "sites-of-its-own", name)
    outcome = execute(task_job(federation_at, name, task=task), plan)
    assert outcome.metrics.keys() == TASKS[name].measures
    assert verify_run(plan.folder.path).conclusion is Conclusion.VERIFIED
    assert (plan.folder.path / "model.safetensors").read_bytes() != (
        in_process(name) / "model.safetensors"
    ).read_bytes()


@pytest.fixture(scope="module")
def on_flower(founded: Path, federation_at: Small) -> Path:
    """The folder of a federation whose processes carried all jobs, one after the other."""
    path = founded.with_name("flower")
    shutil.copytree(founded, path)
    federation = FederationFolder(path)
    with connect_sites(RuntimeName.FLOWER, federation, note=path / "note.json", unsafe_seed=SEED, attackers=0) as sites:
        for name in TASKS:
            evaluate_on(path, name)
            plan = plan_of(RuntimeName.FLOWER, path, name)
            job = prepare(task_job(federation_at, name), plan)
            with open_log(plan) as audit:
                coordinate(job, plan, sites, audit)
    wait_for(lambda: not processes_naming(path), "every process is gone", within_s=15)
    return path


def the_same(here: Path, there: Path) -> None:
    assert RunFolder(there).state().models == RunFolder(here).state().models
    assert (there / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    assert RunFolder(there).read_json("outcome.json") == RunFolder(here).read_json("outcome.json")
    assert verify_run(there).conclusion is Conclusion.VERIFIED


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_each_task_gives_the_same_model_on_flower_bit_for_bit(
    in_process: Callable[[str], Path], on_flower: Path, name: str
) -> None:
    the_same(in_process(name), on_flower / f"run-{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_each_task_gives_the_same_model_on_nvflare_bit_for_bit(
    founded: Path, tmp_path: Path, federation_at: Small, in_process: Callable[[str], Path], name: str
) -> None:
    path = tmp_path / "nvflare"
    shutil.copytree(founded, path)
    evaluate_on(path, name)
    plan = plan_of(RuntimeName.NVFLARE, path, name)
    execute(task_job(federation_at, name), plan)
    the_same(in_process(name), plan.folder.path)
    wait_for(lambda: not processes_naming(path), "every process is gone", within_s=15)
    assert CarriedOut(RuntimeName.NVFLARE, path).events("clinic-1")
