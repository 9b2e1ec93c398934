"""The manifest of a run folder: every file of the run's own, and nothing that other programs go on with."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from aegis.errors import VerificationFailed
from aegis.runs.manifest import MANIFEST, SIGNATURE, files_of, is_left_out, read_manifest, sign_manifest
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.signing import Signer

SIGNER, JOB = Signer.from_seed(bytes(32)), "ab" * 32


def written(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def read(folder: Path, job: str = JOB, key: str = SIGNER.public_hex) -> dict[str, str]:
    return dict(read_manifest((folder / MANIFEST).read_bytes(), (folder / SIGNATURE).read_bytes(), job, key))


def test_every_file_is_listed_by_its_digest_and_pending_ones_by_what_they_will_be(tmp_path: Path) -> None:
    written(tmp_path, "job.yaml", "state/models/a.safetensors", ".hidden", "outcome.json")
    sign_manifest(tmp_path, JOB, SIGNER, pending={"outcome.json": b"new", "summary.md": b"later"})
    sign_manifest(tmp_path, JOB, SIGNER, pending={"outcome.json": b"new", "summary.md": b"later"})
    assert read(tmp_path) == {
        **{name: sha256_hex(name.encode()) for name in ("job.yaml", "state/models/a.safetensors", ".hidden")},
        "outcome.json": sha256_hex(b"new"),
        "summary.md": sha256_hex(b"later"),
    }


LEFT_OUT = {
    **dict.fromkeys(("nvflare.log", "nvflare-run.json", "nvflare-end.json", "flower-run.json"), True),
    **dict.fromkeys(("nvflare/workspace/x", "federation/sites/a/ledger.sqlite", "repeats/1/federation/f"), True),
    **dict.fromkeys(
        ("nvflare.log.txt", "state/nvflare.log", "federation", "federations/x", "state/flower-run.json"), False
    ),
}


@pytest.mark.parametrize(("name", "left_out"), LEFT_OUT.items(), ids=LEFT_OUT)
def test_only_files_of_other_programs_are_left_out(name: str, left_out: bool) -> None:
    assert is_left_out(name) is left_out


def test_files_that_are_left_out_are_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running federation has sockets there, and files that come and go."""
    written(tmp_path, "job.yaml", "federation/coordinator/lock")
    monkeypatch.chdir(tmp_path / "federation")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("agent.sock")
        sign_manifest(tmp_path, JOB, SIGNER, pending={})
    assert set(read(tmp_path)) == {"job.yaml"}


def test_a_link_is_a_file_of_its_own(tmp_path: Path) -> None:
    written(tmp_path, "state/a")
    (tmp_path / "more").symlink_to("state")
    assert list(files_of(tmp_path)) == ["more", "state/a"]


def test_a_manifest_of_another_job_another_key_or_another_list_is_refused(tmp_path: Path) -> None:
    sign_manifest(written(tmp_path, "job.yaml"), JOB, SIGNER, pending={})
    with pytest.raises(VerificationFailed, match="another job"):
        read(tmp_path, job="cd" * 32)
    with pytest.raises(VerificationFailed, match="unknown key"):
        read(tmp_path, key=Signer.generate().public_hex)
    listed = json.loads((tmp_path / MANIFEST).read_bytes())
    (tmp_path / MANIFEST).write_text(json.dumps({**listed, "files": {}}))
    with pytest.raises(VerificationFailed, match="is not the manifest"):
        read(tmp_path)
