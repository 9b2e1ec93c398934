"""``coreason-enclave attest``: evidence over a nonce, or one line that says what was looked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coreason_enclave.attestation.binding import gpu_nonce, report_data
from coreason_enclave.attestation.evidence import parse_evidence
from coreason_enclave.commands import attest
from coreason_enclave.crypto.encoding import frame
from coreason_enclave.hardware.discovery import DEVICES, HARDWARE, ThisHost
from coreason_enclave.main import main
from tests.coreason_enclave.hardware.devices import NoDevices, TsmTree
from tests.coreason_enclave.hardware.hosts import KINDS, FakeNvml, tree_of, verified, verified_gpu

NONCE = "5A" * 16 + "0f" * 16
CONTEXT = frame(b"aegis/attestation/manual", b"1", bytes.fromhex(NONCE))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["attest", *map(str, arguments)])


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run the command on a host of this kind with two GPUs."""

    def host(kind: str) -> None:
        tree = NoDevices() if kind == "none" else tree_of(kind)
        monkeypatch.setattr(attest, "ThisHost", lambda: ThisHost(tree, FakeNvml()))

    return host


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_verifies_against_the_bytes_that_are_printed(
    kind: str, on: Callable[[str], None], tmp_path: Path
) -> None:
    on(kind)
    out = tmp_path / "evidence.json"

    done = run("--nonce", NONCE, "--attester", f"{kind}+nvidia", "--out", out)

    assert done.exit_code == 0, done.output
    evidence = parse_evidence(json.loads(out.read_bytes()))
    printed = dict(re.findall(r"^(report data|gpu nonce) +([0-9a-f]+)$", done.stdout, flags=re.MULTILINE))
    assert bytes.fromhex(printed["report data"]) == report_data(CONTEXT, evidence.gpus)
    assert verified(evidence.cpu, bytes.fromhex(printed["report data"])).kind == kind
    gpu = bytes.fromhex(printed["gpu nonce"])
    assert gpu == gpu_nonce(CONTEXT)
    assert [verified_gpu(report, gpu).kind for report in evidence.gpus] == ["nvidia", "nvidia"]
    assert "the evidence is not verified yet" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_hosts_own_hardware_is_found_where_none_is_named(kind: str, on: Callable[[str], None]) -> None:
    on(kind)

    said = json.loads(run("--nonce", NONCE, "--json").stdout)

    evidence = parse_evidence(said["evidence"])
    assert evidence.kind == kind
    assert said["gpu_nonce"] is None
    assert verified(evidence.cpu, bytes.fromhex(said["report_data"]))


@pytest.mark.parametrize("nonce", ["", "5a", NONCE[:-1], NONCE + "00", "0x" + NONCE[2:], "zz" * 32, NONCE + "\n"])
def test_a_nonce_that_is_not_32_bytes_of_hex_is_refused(nonce: str, on: Callable[[str], None], tmp_path: Path) -> None:
    on("tdx")

    done = run("--nonce", nonce, "--out", tmp_path / "evidence.json")

    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "32 bytes in hex" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_left_as_it_is_and_no_device_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tree_of("tdx")
    monkeypatch.setattr(attest, "ThisHost", lambda: ThisHost(asked, FakeNvml()))
    for name in ("file", "dangling"):
        path = tmp_path / name
        path.write_text("mine") if name == "file" else path.symlink_to(tmp_path / "nowhere")

        done = run("--nonce", NONCE, "--out", path)

        assert done.exit_code == 2
        assert f"{path} exists" in done.stderr
    assert isinstance(asked, TsmTree)
    assert asked.made == []
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_file_that_appears_while_evidence_is_collected_is_left_as_it_is(
    on: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("tdx")
    out = tmp_path / "evidence.json"
    monkeypatch.setattr(attest, "_require_new", lambda path: out.write_text("theirs"))

    done = run("--nonce", NONCE, "--out", out)

    assert done.exit_code == 2
    assert out.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.json"]


def test_a_folder_that_is_not_there_is_told(on: Callable[[str], None], tmp_path: Path) -> None:
    on("tdx")

    done = run("--nonce", NONCE, "--out", tmp_path / "no" / "evidence.json")

    assert done.exit_code == 2
    assert f"folder {tmp_path / 'no'} does not exist" in done.stderr


@pytest.mark.parametrize("attester", [None, *HARDWARE])
def test_without_hardware_it_says_where_it_looked_and_writes_nothing(
    attester: str | None, on: Callable[[str], None], tmp_path: Path
) -> None:
    on("none")
    named = [] if attester is None else ["--attester", attester]

    done = run("--nonce", NONCE, "--out", tmp_path / "evidence.json", *named)

    assert done.exit_code == 3
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    looked = DEVICES.values() if attester is None else [DEVICES["SGX under Gramine"], DEVICES["configfs-tsm"]]
    assert any(path in done.stderr for path in looked)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attester", ["simulated", "none", "tdx+", ""])
def test_only_hardware_can_be_named(attester: str, on: Callable[[str], None]) -> None:
    on("tdx")

    assert run("--nonce", NONCE, "--attester", attester).exit_code == 2


def test_the_help_says_what_the_evidence_is_bound_to() -> None:
    said = " ".join(run("--help").stdout.split())

    assert '"aegis/attestation/manual", "1" and the nonce' in said
    assert "no site, no key and no job" in said
