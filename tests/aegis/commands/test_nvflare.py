"""``aegis nvflare`` and the options of ``aegis run`` that host FLARE: wrong input is one line, and changes nothing."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from aegis.runs import nvflare_client as flare

Aegis = Callable[..., Result]
KIT = ("--server", "localhost", "--admin", "you@example.org")

WRONG = {
    "hosting for another runtime": (("--poc",), "need --runtime nvflare"),
    "threads for another runtime": (("--runtime", "flower", "--threads", "2"), "need --runtime nvflare"),
    "two hostings": (("--runtime", "nvflare", "--poc", "--startup-kit", "."), "--poc and --startup-kit contradict"),
    "two others": (("--runtime", "nvflare", "--poc", "--simulator"), "--simulator and --poc contradict"),
    "an executor that is nowhere": (
        ("--runtime", "nvflare", "--executor", "no_such.module:Agent"),
        "module 'no_such' is neither in this folder nor installed",
    ),
    "threads of real processes": (("--runtime", "nvflare", "--poc", "--threads", "2"), "need --simulator"),
    "an executor that is a file": (("--runtime", "nvflare", "--executor", "agent.py"), "takes package.module:Class"),
    "no threads": (("--runtime", "nvflare", "--threads", "0"), "not in the range"),
    "a kit that is not there": (("--runtime", "nvflare", "--startup-kit", "nowhere"), "does not exist"),
    "a folder that is no kit": (("--runtime", "nvflare", "--startup-kit", "."), "no administrator's kit"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_options_that_do_not_go_together_are_refused(
    aegis: Aegis, study: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")
    monkeypatch.chdir(study.root)

    result = aegis("run", study.write_job("study-1"), "--federation", study.federation, "--out", "run", *options)

    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[-1]
    assert not list(study.root.glob("run/nvflare*"))


def test_without_flare_the_line_says_what_to_install(aegis: Aegis, study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flare.importlib.util, "find_spec", lambda name: None)

    result = aegis("nvflare", "provision", study.federation, *KIT, "--out", study.root / "kits")

    assert result.exit_code == 2
    assert result.stderr == "error: NVIDIA FLARE is not installed: pip install 'aegis-fl[nvflare]'\n"


def test_kits_are_made_for_everybody_who_takes_part_and_is_not_revoked(aegis: Aegis, study: Any) -> None:
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")
    aegis("federation", "revoke", study.federation, "clinic-2")

    result = aegis("nvflare", "provision", study.federation, *KIT, "--out", study.root / "kits", "--json")

    said = json.loads(result.stdout)
    assert list(said["sites"]) == ["clinic-1"]
    settings = json.loads((Path(said["server"]) / "local" / "aegis.json").read_bytes())
    assert settings["federation"] == str(study.federation)


def test_the_next_line_names_the_kit_that_was_made_here(aegis: Aegis, study: Any) -> None:
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")
    made = aegis("nvflare", "provision", study.federation, *KIT, "--out", study.root / "my kits", "--json")
    admin = Path(json.loads(made.stdout)["admin"])

    export = ("nvflare", "export-job", study.write_job("study-1"), "--federation", study.federation, "--out")
    words = shlex.split(aegis(*export, study.root / "exported job").stdout.splitlines()[-1])

    assert words == ["next:", "nvflare", "job", "submit", "-j", str(study.root / "exported job"),
                     "--startup-kit", str(admin)]  # fmt: skip
    shutil.rmtree(admin)
    assert "--startup-kit KIT, the administrator's" in aegis(*export, study.root / "again").stdout


@pytest.mark.parametrize("name", ["../elsewhere", "a b", "", "{run}"])
def test_a_run_folder_that_a_job_cannot_name_is_refused(aegis: Aegis, study: Any, name: str) -> None:
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")
    out = study.root / "exported"

    job = study.write_job("study-1")
    result = aegis("nvflare", "export-job", job, "--federation", study.federation, "--out", out, "--run", name)

    assert result.exit_code == 2
    assert "cannot name the run folder" in result.stderr
    assert not out.exists()


@pytest.mark.slow
def test_a_run_that_a_site_refuses_ends_with_the_sites_own_reason_as_on_every_runtime(aegis: Aegis, study: Any) -> None:
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")
    path = study.federation / "sites" / "clinic-2" / "site.toml"
    path.write_text(path.read_text().replace("LogisticRegression", "AnotherModel"))
    job = study.write_job("unwanted")

    result = aegis(
        *("run", job, "--federation", study.federation, "--out", study.root / "unwanted", "--runtime", "nvflare")
    )

    assert result.exit_code == 3, result.output
    assert "clinic-2: policy" in result.stderr
    assert "model_archs does not list the job's LogisticRegression" in result.stderr
    assert "see aegis explain policy" in result.stderr
