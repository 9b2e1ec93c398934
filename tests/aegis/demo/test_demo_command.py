"""``aegis demo`` as a person runs it: a process, a folder of results, and a kill in the middle."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegis.demo.randhie_data import CENTRAL_LOGISTIC, CENTRAL_TREES, evaluation_families, load_evaluation_set
from aegis.demo.recipe import DemoOptions
from aegis.demo.setup import create_demo_study
from aegis.demo.study import choose_study
from aegis.errors import RunFolderError
from aegis.runs.connect import RuntimeName
from aegis.runs.folder import RunFolder
from aegis.security.audit import verify_checkpoint, verify_lines
from coreason_enclave.crypto.envelope import KeyRing
from coreason_enclave.ledger import verify_export
from coreason_enclave.schemas import Aggregator
from coreason_enclave.wire.updates import decode_arrays

SITES = ("site-1", "site-2", "site-3")
OVER_FLOWER = ("--sites", "3", "--rounds", "3", "--repeats", "0", "--seed", "7")
OPTIONS = (*OVER_FLOWER, "--runtime", "in-process")
RUN_FILES = (
    "job.yaml",
    "config.json",
    "metrics.csv",
    "model.safetensors",
    "audit.jsonl",
    "audit.checkpoint.json",
    "outcome.json",
    *(f"ledger/{site}.json" for site in SITES),
)


def command(folder: Path, *options: str) -> dict[str, Any]:
    """How to start ``aegis`` in ``folder``, as arguments of a subprocess."""
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    return {
        "args": [sys.executable, "-m", "aegis.cli", *options],
        "cwd": folder,
        "env": environment,
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }


def aegis(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(folder, *options), timeout=200, check=False)


def latest(folder: Path) -> Path:
    """The run of the newest demonstration in ``folder``, finished or not."""
    return (folder / "runs" / "latest-study").resolve() / "runs" / "1"


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file's digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rounds_in(ledger: Path) -> list[tuple[str, int]]:
    """(job, round) of every reservation in an exported ledger, after its chain was verified."""
    data = ledger.read_bytes()
    verify_export(data)
    entries = [json.loads(row["payload"]) for row in json.loads(data)["entries"]]
    return [
        (entry["plan"]["job_id"], entry["plan"]["round_number"])
        for entry in entries
        if entry["type"].startswith("reserved")
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which a demonstration was run to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, aegis(folder, "demo", *OPTIONS, "--json")


Finished = tuple[Path, subprocess.CompletedProcess[str]]


def run_of(finished: Finished) -> Path:
    """The run folder of the finished demonstration, whatever was run there since."""
    folder, done = finished
    return folder / str(json.loads(done.stdout)["run"])


def test_it_succeeds_and_prints_its_figures_as_json_alone(finished: Finished) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (folder / "runs" / "latest").is_symlink()
    auc = figures["measures"]["auc"]
    central = {name: measures["auc"]["value"] for name, measures in figures["references"].items()}
    assert sorted(central) == sorted((CENTRAL_LOGISTIC, CENTRAL_TREES))
    assert 0.6 < auc["value"] < central[CENTRAL_LOGISTIC] < 0.8
    assert auc["low"] < auc["value"] < auc["high"]
    assert figures["of_runs"]["auc"] == [pytest.approx(auc["value"], abs=1e-9)]
    assert 0 < figures["epsilon"] <= 3.0
    assert (figures["delta"], figures["unit"], figures["attestation"]) == (1e-5, "person", "simulated")
    assert "new SIMULATED sites in runs/studies/demo-" in done.stderr
    assert "3 of one study's six real sites" in done.stderr
    for number in (1, 2, 3):
        assert f"round {number}/3" in done.stderr


@pytest.mark.parametrize("part", ["", "twin"])
def test_the_run_folder_has_the_mandated_layout(part: str, finished: Finished) -> None:
    run = run_of(finished) / part
    missing = [name for name in RUN_FILES if not (run / name).is_file()]
    assert missing == []
    config = json.loads((run / "config.json").read_text())
    assert (config["profile"], config["attestation"]) == ("development", "simulated")
    assert config["randomness"].startswith("UNSAFE")
    model = decode_arrays((run / "model.safetensors").read_bytes(), limit=1 << 20)
    assert all(np.isfinite(array).all() for array in model.values())
    assert any(np.abs(array).max() > 0.01 for array in model.values())
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["round"] for row in rows] == ["1", "2", "3"]
    assert all(0.5 < float(row["auc"]) < 0.8 for row in rows)


def secrets_of(federations: Path) -> list[bytes]:
    """Every private key below ``federations``, in each spelling that a file could have it in."""
    keys = [path.read_bytes() for path in federations.rglob("*") if path.is_file() and "keys" in path.parts]
    keys += [path.read_bytes() for path in federations.rglob("*.key")]
    raw = [key for key in keys if len(key) >= 32]
    return [*raw, *(key.hex().encode() for key in raw), *(base64.b64encode(key) for key in raw)]


def files_that_tell(folder: Path, secrets: list[bytes]) -> list[str]:
    """The files below ``folder`` that hold any of ``secrets``."""
    held = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return sorted(name for name, data in held.items() if any(secret in data for secret in secrets))


def check_nothing_private(folder: Path, run: Path, bundle: Path) -> None:
    study = run.parents[1]
    secrets = secrets_of(study)
    assert len(secrets) >= 3 * (len(SITES) + 1)
    assert files_that_tell(study, secrets) != []  # the scan finds what is there
    assert files_that_tell(run, secrets) == []
    for part in ("", "twin"):  # every site was reached after the last round, whatever carries the messages
        assert sorted(path.stem for path in (run / part / "witness").glob("*.json")) == list(SITES)
    assert [str(path) for path in run.rglob("*") if {"keys", "federation"} & set(path.relative_to(run).parts)] == []
    exported = aegis(folder, "run", "export", str(run), "--out", str(bundle))
    assert exported.returncode == 0, exported.stderr
    unpacked = bundle.with_suffix("")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(unpacked)
    assert files_that_tell(unpacked, secrets) == []
    assert not any(secret in bundle.read_bytes() for secret in secrets)


def test_no_private_key_is_in_the_run_folder_nor_in_what_is_given_to_an_auditor(
    finished: Finished, tmp_path: Path
) -> None:
    folder, run = finished[0], run_of(finished)
    check_nothing_private(folder, run, tmp_path / "bundle.zip")
    verified = aegis(tmp_path, "verify", "bundle.zip")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_log_and_ledgers_of_a_finished_run_verify(finished: Finished) -> None:
    run = run_of(finished)
    log = (run / "audit.jsonl").read_bytes()
    key = json.loads((run / "config.json").read_text())["coordinator_key"]
    signed = verify_checkpoint(log, (run / "audit.checkpoint.json").read_bytes(), KeyRing({"coordinator": key}))
    assert verify_lines(log).size >= signed.size > 10
    for site in SITES:
        assert rounds_in(run / "ledger" / f"{site}.json") == [("randhie-visits-1", number) for number in (1, 2, 3)]
        assert len(rounds_in(run / "twin" / "ledger" / f"{site}.json")) == 6


@pytest.mark.parametrize("name", ["utility", "epsilon", "updates", "roc", "calibration", "confusion"])
def test_the_pictures_decode_and_are_not_blank(name: str, finished: Finished) -> None:
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(run_of(finished) / "plots" / f"{name}.png")
    assert pixels.shape[0] >= 400
    assert pixels.shape[1] >= 700
    ink = (np.abs(pixels[..., :3] - pixels[0, 0, :3]).max(axis=-1) > 0.2).mean()
    assert 0.005 < ink < 0.5


def test_the_summary_says_what_was_achieved_what_it_cost_and_what_was_simulated(finished: Finished) -> None:
    _, done = finished
    figures, summary = json.loads(done.stdout), (run_of(finished) / "summary.md").read_text()
    for said in (
        "SIMULATED",
        f"auc {figures['measures']['auc']['value']:.4f}",
        f"for one person: epsilon {figures['epsilon']:.3f} spent",
        "UNSAFE: injected seed",
        "every epsilon of this run is void",
        "bootstrap over held-out groups",
        "Recipe and features were chosen by trial on this public dataset",
        *SITES,
    ):
        assert said in summary


@pytest.mark.slow
def test_a_second_demonstration_is_a_new_run_on_new_lineages_and_the_first_stays_as_it_was(
    finished: Finished,
) -> None:
    (folder, _), first = finished, run_of(finished)
    before = fingerprint(first)
    done = aegis(folder, "demo", *OPTIONS)
    second = latest(folder)
    assert done.returncode == 0, done.stderr
    assert "RESUMED" not in done.stdout
    assert second != first
    assert fingerprint(first) == before
    for site in SITES:
        ids = [verify_export((run / "ledger" / f"{site}.json").read_bytes()).ledger_id for run in (first, second)]
        assert ids[0] != ids[1]
        assert rounds_in(second / "ledger" / f"{site}.json") == rounds_in(first / "ledger" / f"{site}.json")
    # The same injected seed over newly created sites: the keys that sign are others, the numbers are not.
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_killed_in_the_middle_the_same_command_goes_on_and_nothing_is_spent_twice(
    finished: Finished, tmp_path: Path
) -> None:
    kill_at("round 2/", tmp_path)
    killed = latest(tmp_path)
    assert not (killed / "summary.md").exists()
    done = aegis(tmp_path, "demo", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert f"RESUMED: SIMULATED sites in runs/studies/{killed.parents[1].name}" in done.stdout
    assert latest(tmp_path) == killed
    undisturbed = run_of(finished)
    assert (killed / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
    for site in SITES:
        assert rounds_in(killed / "ledger" / f"{site}.json") == [("randhie-visits-1", number) for number in (1, 2, 3)]
    rows = list(csv.DictReader((killed / "metrics.csv").read_text().splitlines()))
    assert [row["round"] for row in rows] == ["1", "2", "3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["run 1 of", "the same job without", "writing measures"], ids=["start", "twin", "summary"]
)
def test_killed_at_another_stage_it_goes_on_to_the_same_end_and_its_records_verify(
    line: str, finished: Finished, tmp_path: Path
) -> None:
    kill_at(line, tmp_path)
    killed = latest(tmp_path)
    assert not (killed / "summary.md").exists()
    done = aegis(tmp_path, "demo", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "RESUMED" in done.stdout
    for part in ("", "twin"):
        models = [(run / part / "model.safetensors").read_bytes() for run in (latest(tmp_path), run_of(finished))]
        assert models[0] == models[1]
    verified = aegis(tmp_path, "verify", "runs/latest")
    assert verified.returncode == 0, verified.stdout + verified.stderr


# --- over processes -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_over_processes_it_gives_the_same_model_and_leaves_no_process(finished: Finished, tmp_path: Path) -> None:
    done = aegis(tmp_path, "demo", *OVER_FLOWER)
    assert done.returncode == 0, done.stderr
    assert "starting SuperLink, gateway and each site's processes for this run" in done.stdout
    check_same_models(tmp_path, finished)
    assert processes_of(tmp_path) == {}
    check_nothing_private(tmp_path, latest(tmp_path), tmp_path / "bundle.zip")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_is_killed_at_random_the_same_command_ends_in_the_same_model(
    finished: Finished, tmp_path: Path
) -> None:
    chance = random.Random(20261122)
    for after in ("round 1/", "round 2/"):
        with subprocess.Popen(**command(tmp_path, "demo", *OVER_FLOWER)) as process:
            assert process.stdout is not None
            for printed in iter(process.stdout.readline, ""):
                if printed.startswith("round "):
                    os.kill(chance.choice(sorted(processes_of(tmp_path).keys() - {process.pid})), signal.SIGKILL)
                if printed.startswith(after):
                    break
            process.kill()
    done = aegis(tmp_path, "demo", *OVER_FLOWER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RESUMED" in done.stdout
    check_same_models(tmp_path, finished)
    for site in SITES:
        rounds = rounds_in(latest(tmp_path) / "ledger" / f"{site}.json")
        assert rounds == [("randhie-visits-1", number) for number in (1, 2, 3)]
    assert processes_of(tmp_path) == {}


def check_same_models(folder: Path, finished: Finished) -> None:
    for part in ("", "twin"):
        models = [(run / part / "model.safetensors").read_bytes() for run in (latest(folder), run_of(finished))]
        assert models[0] == models[1]


def processes_of(folder: Path) -> dict[int, str]:
    """The processes that work in ``folder``, or name something there on their command line, by pid."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            works_in = (process / "cwd").readlink()
            if str(folder) in words or works_in.is_relative_to(folder):
                found[int(process.name)] = words
    return found


def kill_at(line: str, folder: Path) -> None:
    """Run the demonstration in ``folder`` until it prints a line that starts so, and kill it."""
    with subprocess.Popen(**command(folder, "demo", *OPTIONS)) as process:
        assert process.stdout is not None
        assert any(printed.startswith(line) for printed in iter(process.stdout.readline, ""))
        process.kill()


def test_as_a_process_too_a_wrong_option_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = aegis(tmp_path, "demo", "--epsilon", "-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: target_epsilon must be in (0, 1000], got -1\n"
    assert list(tmp_path.iterdir()) == []


# --- which run a command goes on with -------------------------------------------------------------------------


def test_an_unfinished_run_is_resumed_by_the_same_options_only(tmp_path: Path) -> None:
    options = DemoOptions(sites=2, aggregator=Aggregator.MEAN, seed=7)
    first, is_new = choose_study(tmp_path, options)
    assert is_new
    assert choose_study(tmp_path, options) == (first, False)
    for other in (
        replace(options, seed=8),
        replace(options, repeats=1),
        replace(options, runtime=RuntimeName.IN_PROCESS),
    ):
        new, is_new = choose_study(tmp_path, other)
        assert is_new
        assert new != first
        assert choose_study(tmp_path, other) == (new, False)
    assert len(list((tmp_path / "studies").iterdir())) == 4
    assert choose_study(tmp_path, options)[1]  # the newest alone goes on


def test_a_finished_run_is_never_gone_on_with(tmp_path: Path) -> None:
    options = DemoOptions(sites=2, aggregator=Aggregator.MEAN)
    first, _ = choose_study(tmp_path, options)
    first.run(1).path.mkdir(parents=True)
    (first.run(1).path / "summary.md").write_text("done")
    assert choose_study(tmp_path, options)[1]


def test_a_latest_that_points_at_something_else_is_no_run_to_go_on_with(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "latest-study").symlink_to("elsewhere")
    assert choose_study(tmp_path, DemoOptions(sites=2, aggregator=Aggregator.MEAN))[1]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_killed_creation_leaves_nothing_that_a_later_one_keeps(tmp_path: Path) -> None:
    stale = tmp_path / "studies" / ".demo-20260101-000000.new"
    stale.mkdir(parents=True)
    choose_study(tmp_path, DemoOptions(sites=2, aggregator=Aggregator.MEAN))
    assert not stale.exists()


def test_the_evaluation_set_of_the_study_is_the_declared_one_with_its_families(tmp_path: Path) -> None:
    study = create_demo_study(tmp_path / "demo", DemoOptions(sites=2, aggregator=Aggregator.MEAN))
    held_out, declared = study.federation().evaluation_set(), load_evaluation_set()
    assert held_out is not None
    np.testing.assert_allclose(held_out.features, declared.features, atol=1e-6)
    np.testing.assert_array_equal(held_out.labels, declared.labels)
    groups = (study.held_out_rows / "groups.csv").read_text().splitlines()
    assert groups == ["group", *(str(family) for family in evaluation_families())]


def test_a_run_that_lost_its_state_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunFolder(tmp_path).state()
