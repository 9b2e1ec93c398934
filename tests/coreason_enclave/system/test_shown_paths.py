"""A path below the current folder is written relative to that folder; every other path stays whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from coreason_enclave.system import from_here

CASES = {
    "a file below": ("cannot read HERE/study/study.toml: no", "cannot read study/study.toml: no"),
    "two paths": ("HERE/a and HERE/b differ", "a and b differ"),
    "in quotes": ("Directory 'HERE/a b' does not exist", "Directory 'a b' does not exist"),
    "behind an equals sign": ("data_root=HERE/data", "data_root=data"),
    "in brackets": ("a record (HERE/a.json) is damaged", "a record (a.json) is damaged"),
    "the folder itself": ("HERE has no site.toml", ". has no site.toml"),
    "the folder itself with a slash": ("HERE/ has no site.toml", ". has no site.toml"),
    "the folder itself ends the sentence": ("nothing is in HERE.", "nothing is in HERE."),
    "a neighbour whose name begins alike": ("HEREs/a and HERE.old/b", "HEREs/a and HERE.old/b"),
    "the end of a longer path": ("/mirror" + "HERE/a", "/mirror" + "HERE/a"),
    "a URL": ("sqlite://HERE/a.sqlite", "sqlite://HERE/a.sqlite"),
    "a path elsewhere": ("/etc/passwd: no", "/etc/passwd: no"),
}


@pytest.mark.parametrize(("said", "shown"), CASES.values(), ids=CASES)
def test_a_path_in_a_sentence(said: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(Path.cwd())
    assert from_here(said.replace("HERE", here)) == shown.replace("HERE", here)


def test_a_folder_reached_over_a_link_is_known_by_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    monkeypatch.chdir(link)
    monkeypatch.setenv("PWD", str(link))
    assert from_here(f"{link}/a and {real}/b") == "a and b"
    monkeypatch.setenv("PWD", str(tmp_path))
    assert from_here(f"{tmp_path}/a and {real}/b") == f"{tmp_path}/a and b"


def test_nothing_changes_at_the_root_or_in_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir("/")
    assert from_here("/etc/passwd") == "/etc/passwd"
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert from_here(f"{gone}/a") == f"{gone}/a"
