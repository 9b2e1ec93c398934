"""``aegis run export``: a finished run as one file, which ``aegis verify`` takes, and nothing private in it."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.aegis.commands.conftest import Study

Aegis = Callable[..., Result]


@pytest.fixture
def bundle(aegis: Aegis, finished_run: Path, tmp_path: Path) -> Path:
    result = aegis("run", "export", finished_run, "--out", tmp_path / "bundle.zip")
    assert result.exit_code == 0, result.output
    return tmp_path / "bundle.zip"


def test_a_bundle_verifies_as_its_folder_does(aegis: Aegis, finished_run: Path, bundle: Path) -> None:
    told = [aegis("verify", run).stdout.splitlines() for run in (finished_run, bundle)]
    assert told[0][:-1] == told[1][:-1]
    assert aegis("verify", bundle).exit_code == 0


def test_the_same_run_gives_the_same_bytes_and_never_over_a_file(
    aegis: Aegis, finished_run: Path, bundle: Path, tmp_path: Path
) -> None:
    for path in finished_run.rglob("*"):
        os.utime(path)
    assert aegis("run", "export", finished_run, "--out", tmp_path / "again.zip").exit_code == 0
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()
    bundle.write_bytes(b"mine")
    refused = aegis("run", "export", finished_run, "--out", bundle)
    assert (refused.exit_code, bundle.read_bytes()) == (2, b"mine")
    assert "choose another name" in refused.stderr


def test_records_go_into_a_bundle_and_nothing_private_does(aegis: Aegis, run_copy: Path, tmp_path: Path) -> None:
    private = {
        "keys/signing.key": b"SECRET",
        "twin/keys/jobs/x": b"SECRET",
        "federation/coordinator/signing.key": b"SECRET",
        "nvflare/kits/client.key": b"SECRET",
        "flower-run.json": b"SECRET",
        "nvflare-run.json": b"SECRET",
        ".outcome.json.tmp": b"SECRET",
        "note.txt": b"SECRET",
    }
    for name, data in private.items():
        path = run_copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (run_copy / "note.txt").chmod(0o600)
    (run_copy / "secret-link").symlink_to(run_copy / "note.txt")
    assert aegis("run", "export", run_copy, "--out", tmp_path / "bundle.zip").exit_code == 0
    assert b"SECRET" not in (tmp_path / "bundle.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        names = archive.namelist()
        assert all(archive.read(name) == (run_copy / name).read_bytes() for name in names)
    assert names == sorted(names)
    expected = {"job.yaml", "config.json", "audit.jsonl", "audit.checkpoint.json", "state/state.json", "outcome.json"}
    assert expected <= set(names)
    assert {name for name in names if name.startswith("state/updates/")}


PRIVATE: dict[str, Callable[[Path], object]] = {
    "a record that its owner alone may read": lambda run: (run / "config.json").chmod(0o600),
    "a record that is gone": lambda run: (run / "metrics.csv").unlink(),
    "a record that is a link": lambda run: [
        (run / "metrics.csv").unlink(),
        (run / "metrics.csv").symlink_to("/etc/hostname"),
    ],
    "a key that a manifest names": lambda run: name_in_manifest(run, "keys/signing.key"),
    "a path outside": lambda run: name_in_manifest(run, "../outside"),
    "no manifest": lambda run: (run / "manifest.json").unlink(),
}


def name_in_manifest(run: Path, name: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(b"SECRET")
    listed = json.loads((run / "manifest.json").read_text())
    listed["files"][name] = "00" * 32
    (run / "manifest.json").write_text(json.dumps(listed))


@pytest.mark.parametrize("spoil", PRIVATE.values(), ids=PRIVATE)
def test_a_run_that_would_give_away_something_else_than_records_is_not_exported(
    aegis: Aegis, run_copy: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(run_copy)
    result = aegis("run", "export", run_copy, "--out", tmp_path / "bundle.zip")
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "bundle.zip").exists()


def test_an_unfinished_run_and_what_is_none_are_refused_and_leave_nothing(
    aegis: Aegis, run_copy: Path, tmp_path: Path
) -> None:
    (run_copy / "outcome.json").unlink()
    (tmp_path / "empty").mkdir()
    for folder, said in ((run_copy, "has not finished"), (tmp_path / "empty", "is not a run folder")):
        result = aegis("run", "export", folder, "--out", tmp_path / "bundle.zip")
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert not (tmp_path / "bundle.zip").exists()


def test_a_full_disk_leaves_no_bundle(
    aegis: Aegis, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coreason_enclave.system import files

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    result = aegis("run", "export", finished_run, "--out", tmp_path / "bundle.zip")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])


def test_a_job_may_still_be_run_and_help_is_that_of_running(aegis: Aegis, study: Study) -> None:
    assert "JOB.yaml" in aegis("run", "--help").stdout
    assert "--out" in aegis("run", "export", "--help").stdout
    assert aegis("run", study.root / "nowhere.yaml", "--federation", study.federation).exit_code == 2


def archive(*entries: tuple[zipfile.ZipInfo | str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as written:
        for entry, data in entries:
            written.writestr(entry, data)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def overlapping() -> bytes:
    """Two entries over one file's bytes: more comes out than went in."""
    data = bytearray(archive(("job.yaml", bytes(5000)), ("outcome.json", b"")))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as whole:
        directory = whole.start_dir
    second = data.index(b"PK\x01\x02", directory + 4)
    data[second + 16 : second + 28] = data[directory + 16 : directory + 28]  # its CRC and both its sizes
    data[second + 42 : second + 46] = data[directory + 42 : directory + 46]  # its place
    return bytes(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"", "not a run bundle"),
        (lambda: b"PK\x03\x04 and so on", "not a run bundle"),
        (lambda: archive(("../outside", b"x")), "not a path inside"),
        (lambda: archive(("a/../../outside", b"x")), "not a path inside"),
        (lambda: archive(("/tmp/outside", b"x")), "not a path inside"),
        (lambda: archive(("C:\\outside", b"x")), "not a path inside"),
        (lambda: archive(("state/", b"")), "not a path inside"),
        (lambda: archive(("job.yaml", b"x"), ("job.yaml", b"y")), "a file twice"),
        (lambda: archive(("job.yaml", b"x"), ("JOB.yaml", b"y")), "a file twice"),
        (lambda: archive((link("job.yaml"), b"/etc/passwd")), "a link"),
        (lambda: archive(("job.yaml", bytes(10_000_000)), compress=zipfile.ZIP_DEFLATED), "compressed"),
        (lambda: archive(("job.yaml", b"x"), ("job.yaml/y", b"y")), "not a run bundle"),
        (overlapping, "not a run bundle"),
        (lambda: archive(("job.yaml", b"x" * 99)).replace(b"x" * 50, b"y" * 50), "CRC"),
        (lambda: archive(("job.yaml", b"x" * 99))[:-9], "not a run bundle"),
    ],
)
def test_a_hostile_archive_is_refused_and_nothing_is_written_outside(
    aegis: Aegis, tmp_path: Path, make: Callable[[], bytes], said: str
) -> None:
    (tmp_path / "x.zip").write_bytes(make())
    result = aegis("verify", tmp_path / "x.zip")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    assert not Path("/tmp/outside").exists()


def test_a_bundle_without_a_record_is_verified_as_what_is_left(aegis: Aegis, bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as whole:
        kept = [(name, whole.read(name)) for name in whole.namelist() if name != "metrics.csv"]
    (tmp_path / "less.zip").write_bytes(archive(*kept))
    result = aegis("verify", tmp_path / "less.zip")
    assert result.exit_code == 10, result.output
    assert "metrics.csv" in result.output
