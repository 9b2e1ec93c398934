"""An interrupted installation is repaired by the next call, and a finished one is left alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tools import setup_venv


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, working on an empty tree of its own."""
    for name in setup_venv.INPUTS:
        (tmp_path / name).write_text(f"{name} as it was", encoding="utf-8")
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    return setup_venv


@pytest.fixture
def done(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been done to the environment, in order."""
    acts: list[str] = []

    def create(venv: Path) -> None:
        acts.append("create")
        give_interpreter(venv)

    def install(venv: Path, extras: set[str]) -> None:
        acts.append(f"install {','.join(sorted(extras))}")

    monkeypatch.setattr(setup, "create", create)
    monkeypatch.setattr(setup, "install", install)
    return acts


def give_interpreter(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    python = venv / "bin" / "python"
    python.unlink(missing_ok=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)


def installed(venv: Path, package: str, *files: str) -> Path:
    metadata = venv / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info"
    metadata.mkdir(parents=True)
    for name in files:
        (metadata / name).touch()
    return metadata


def test_a_new_folder_is_set_up_once_and_then_left_alone(setup: ModuleType, done: list[str], tmp_path: Path) -> None:
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})

    assert done == ["create", "install all"]


def test_asking_for_more_installs_more_and_never_less(setup: ModuleType, done: list[str], tmp_path: Path) -> None:
    for extras in ({"all"}, {"all", "dev"}, {"all"}):
        setup.bring_up_to_date(tmp_path / ".venv", extras)

    assert done == ["create", "install all", "install all,dev"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_installs_again_into_the_same_environment(
    setup: ModuleType, done: list[str], tmp_path: Path, name: str
) -> None:
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})
    (tmp_path / name).write_text("changed", encoding="utf-8")
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})

    assert done == ["create", "install all", "install all"]


def test_an_interpreter_that_no_longer_starts_is_replaced(setup: ModuleType, done: list[str], tmp_path: Path) -> None:
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})
    (tmp_path / ".venv" / "bin" / "python").unlink()
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})

    assert done == ["create", "install all"] * 2


def test_an_environment_copied_from_another_folder_is_replaced(
    setup: ModuleType, done: list[str], tmp_path: Path
) -> None:
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})
    stamp = tmp_path / ".venv" / "setup.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"root": "/elsewhere"}), encoding="utf-8")
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})

    assert done == ["create", "install all"] * 2


def test_an_installation_that_fails_leaves_no_stamp(
    setup: ModuleType, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(venv: Path, extras: set[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            setup.bring_up_to_date(tmp_path / ".venv", {"all"})
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})

    assert done == ["create", "install all"]


@pytest.mark.parametrize("stamp", ["", "[]", "{", '{"fingerprint": 3}'])
def test_a_stamp_that_cannot_be_read_counts_as_none(
    setup: ModuleType, done: list[str], tmp_path: Path, stamp: str
) -> None:
    give_interpreter(tmp_path / ".venv")
    (tmp_path / ".venv" / "setup.json").write_text(stamp, encoding="utf-8")
    setup.bring_up_to_date(tmp_path / ".venv", {"all"})

    assert done == ["install all"]


def test_a_package_cut_short_is_forgotten_so_that_pip_installs_it_again(setup: ModuleType, tmp_path: Path) -> None:
    whole = installed(tmp_path, "whole-1.0", "METADATA", "RECORD", "INSTALLER")
    cut_short = installed(tmp_path, "torch-2.13.0", "METADATA", "RECORD")

    assert setup.forget_unfinished_packages(tmp_path) == ["torch-2.13.0"]
    assert whole.exists()
    assert not cut_short.exists()
