"""A refusal because of a file of endorsements names that file, whichever of several it is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.aegis.commands.evidence_files import INTEL, Files
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

HTML = b"<!DOCTYPE html><html><body>We will be back.</body></html>"
JUNK = {
    "snp": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\x30\x03\x02\x01\x01"),
    "nvidia": (HTML, b'{"kind": "nvidia-ocsp", "unknown": 1}'),
    "sgx": (b"[" * 5000, HTML),
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(autouse=True)
def our_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The roots are ours: otherwise the evidence itself would be refused first."""
    room = "aegis.evidence.verification"
    monkeypatch.setattr(f"{room}.verify_sgx", partial(INTEL["sgx"].verifier.verify, "sgx"))
    monkeypatch.setattr(f"{room}.verify_snp", amd.verifier().verify)
    monkeypatch.setattr(f"{room}.verify_nvidia", nvidia.verifier().verify)


@pytest.mark.parametrize(("kind", "junk"), [(kind, junk) for kind, all_of in JUNK.items() for junk in all_of])
def test_the_unreadable_file_among_readable_ones_is_named(aegis: Any, files: Files, kind: str, junk: bytes) -> None:
    question = files.question(kind)
    if kind == "sgx":
        at = question.index("--endorsements")
        del question[at : at + 2]
    odd = files.write("downloaded.bin", junk)

    result = aegis("evidence", "verify", *question, "--endorsements", odd, "--json")

    assert result.exit_code == 3
    said = json.loads(result.stdout)
    assert said["reason"] in ("malformed", "endorsements_mismatch")
    assert f"{odd} cannot be used" in said["message"]
    assert str(odd) in result.stderr


def test_a_readable_file_is_blamed_for_nothing(aegis: Any, files: Files) -> None:
    result = aegis("evidence", "verify", *files.question("snp", b"no report"), "--json")

    assert json.loads(result.stdout)["reason"] == "malformed"
    assert str(files.folder / "evidence") in result.stderr
    assert "cannot be used" not in json.loads(result.stdout)["message"]
