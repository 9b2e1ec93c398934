"""The doctor finds what is broken, says what to do, and changes nothing."""

from __future__ import annotations

import json
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from coreason_enclave.agent.doctor import hardware, host
from coreason_enclave.agent.doctor.findings import Diagnosis, DiagnosisLevel, Examined
from coreason_enclave.commands import doctor as command
from coreason_enclave.hardware.discovery import ThisHost
from coreason_enclave.main import main
from coreason_enclave.policy import load_site_config
from tests.support.gatekeeping import Coordinator, SmallGateway, free_port

NOW = time.time


def findings(folder: Path, now: Callable[[], float] = NOW) -> dict[str, Diagnosis]:
    return {finding.check: finding for finding in command.examine(folder, now=now)}


def failing(folder: Path, now: Callable[[], float] = NOW) -> set[str]:
    return {name for name, finding in findings(folder, now).items() if finding.verdict is DiagnosisLevel.FAIL}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file; SQLite's own companions come and go with a reader."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))
    }


def test_a_good_site_fails_nothing_and_is_left_as_it_was(site: Any) -> None:
    before = snapshot(site.folder)

    found = findings(site.folder)

    assert {name for name, finding in found.items() if finding.verdict is DiagnosisLevel.FAIL} == set()
    assert {name for name, finding in found.items() if finding.verdict is DiagnosisLevel.WARN} <= {
        "attester",  # simulated: it says so
        "attestation hardware",
    }
    assert found["gateway"].verdict is DiagnosisLevel.OK
    assert found["clock"].verdict is DiagnosisLevel.OK
    assert "SIMULATED" in found["attester"].found
    assert snapshot(site.folder) == before


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "site.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@dataclass(frozen=True)
class Broken:
    """One way to break a site, and the checks that must then FAIL."""

    do: Callable[[Path], Any]
    fails: set[str] = field(default_factory=set)


BROKEN = {
    "site.toml is no TOML": Broken(lambda site: (site / "site.toml").write_text("=")),
    "the signing key is missing": Broken(lambda site: (site / "keys/signing.key").unlink(), {"key signing.key"}),
    "the signing key is cut short": Broken(
        lambda site: (site / "keys/signing.key").write_bytes(b"short"), {"key signing.key", "gateway"}
    ),
    "others can read the signing key": Broken(
        lambda site: (site / "keys/signing.key").chmod(0o644), {"key signing.key", "gateway"}
    ),
    "the node key is missing": Broken(lambda site: (site / "keys/node.key").unlink(), {"key node.key"}),
    "the node key is no key": Broken(lambda site: (site / "keys/node.key").write_bytes(b"no"), {"key node.key"}),
    "others can read the TLS key": Broken(
        lambda site: (site / "keys/tls.key").chmod(0o640), {"key tls.key", "gateway"}
    ),
    "the TLS key is missing": Broken(lambda site: (site / "keys/tls.key").unlink(), {"key tls.key", "gateway"}),
    "the ledger is missing": Broken(lambda site: (site / "ledger.sqlite").unlink(), {"ledger"}),
    "the ledger is no ledger": Broken(lambda site: (site / "ledger.sqlite").write_bytes(b"SQLite no"), {"ledger"}),
    "the rows are missing": Broken(
        lambda site: (site / "data/clinic/visits/rows.csv").unlink(), {"data clinic/visits"}
    ),
    "a row is out of range": Broken(
        lambda site: (site / "data/clinic/visits/rows.csv").write_text(
            "patient,age,income,years,visited\np1,1,2,3,9\n"
        ),
        {"data clinic/visits"},
    ),
    "the registration says another unit": Broken(
        lambda site: rewrite(site, 'unit = "person"', 'unit = "record"'), {"data clinic/visits"}
    ),
    "there are fewer persons than the policy wants": Broken(
        lambda site: rewrite(site, "min_units = 1", "min_units = 1000"), {"data clinic/visits"}
    ),
    "no coordinator is listed": Broken(lambda site: rewrite(site, _keys(site), "coordinator_keys = []"), {"policy"}),
    "more participants are wanted than are known": Broken(
        lambda site: rewrite(site, "min_clients = 1", "min_clients = 100"), {"policy"}
    ),
    "the attester is unknown": Broken(
        lambda site: rewrite(site, 'attester = "simulated"', 'attester = "sgx"'), {"attester"}
    ),
    "the site has not joined": Broken(lambda site: (site / "connection.toml").unlink(), {"gateway"}),
    "the connection's file is damaged": Broken(
        lambda site: (site / "connection.toml").write_text("version = 1"), {"gateway"}
    ),
    "the client certificate is damaged": Broken(
        lambda site: (site / "connection/client.crt").write_text("no"), {"gateway"}
    ),
    "nobody listens at the gateway's address": Broken(lambda site: move_gateway(site, free_port()), {"gateway"}),
    "the gateway has another name": Broken(
        lambda site: change_connection(site, '"localhost"', '"other.example"'), {"gateway"}
    ),
}


def _keys(site: Path) -> str:
    text = (site / "site.toml").read_text()
    start = text.index("coordinator_keys")
    return text[start : text.index("]", start) + 1]


def change_connection(site: Path, old: str, new: str) -> None:
    path = site / "connection.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def move_gateway(site: Path, port: int) -> None:
    [line] = [line for line in (site / "connection.toml").read_text().splitlines() if line.startswith("gateway")]
    change_connection(site, line, f'gateway = "127.0.0.1:{port}"')


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_found_and_nothing_else(site: Any, broken: Broken) -> None:
    broken.do(site.folder)
    before = snapshot(site.folder)

    found = findings(site.folder)

    fails = {name for name, finding in found.items() if finding.verdict is DiagnosisLevel.FAIL}
    assert fails == (broken.fails or {"site.toml"})
    assert all(found[name].to_do for name in fails)
    assert snapshot(site.folder) == before


def test_a_gateway_of_another_federation_is_not_believed(site: Any, tmp_path: Path) -> None:
    stranger = SmallGateway(Coordinator(tmp_path / "other").authority)
    move_gateway(site.folder, stranger.port)
    with stranger.serving():
        found = findings(site.folder)["gateway"]

    assert found.verdict is DiagnosisLevel.FAIL
    assert "not this federation's gateway" in found.found


def test_a_gateway_that_refuses_is_quoted_by_its_reason_code(site: Any, gateway: SmallGateway) -> None:
    gateway.answer = lambda heard: (401, b'{"reason":"revoked"}')

    found = findings(site.folder)["gateway"]

    assert found.verdict is DiagnosisLevel.FAIL
    assert "401 revoked" in found.found


@pytest.mark.parametrize("body", [b"", b"[]", b'{"reason":["x"]}', b'{"reason":"\\u001b[2J"}', b"\xff"])
def test_a_refusal_that_makes_no_sense_is_no_fault_of_the_doctors(
    site: Any, gateway: SmallGateway, body: bytes
) -> None:
    gateway.answer = lambda heard: (503, body)

    assert findings(site.folder)["gateway"].found == "the gateway refuses: 503"


@pytest.mark.parametrize(
    ("skew_s", "verdict", "words"),
    [
        (-600, DiagnosisLevel.FAIL, "ahead of"),
        (+600, DiagnosisLevel.FAIL, "behind"),
        (+30, DiagnosisLevel.WARN, "behind"),
        (0, DiagnosisLevel.OK, "within"),
    ],
)
def test_a_clock_that_differs_is_told_with_its_skew(
    site: Any, gateway: SmallGateway, skew_s: int, verdict: DiagnosisLevel, words: str
) -> None:
    gateway.date = lambda: time.time() + skew_s

    found = findings(site.folder)["clock"]

    assert found.verdict is verdict
    assert words in found.found


@pytest.mark.parametrize(
    ("days", "verdict"), [(300, DiagnosisLevel.OK), (360, DiagnosisLevel.WARN), (400, DiagnosisLevel.FAIL)]
)
def test_a_certificate_that_ends_soon_is_told_in_time(site: Any, days: int, verdict: DiagnosisLevel) -> None:
    found = findings(site.folder, lambda: time.time() + days * 86_400)["certificate"]

    assert found.verdict is verdict
    assert bool(found.to_do) == (verdict is not DiagnosisLevel.OK)


@pytest.mark.parametrize(
    ("free", "verdict"), [(10 << 20, DiagnosisLevel.FAIL), (1 << 30, DiagnosisLevel.WARN), (9 << 30, DiagnosisLevel.OK)]
)
def test_a_full_disk_is_found(site: Any, monkeypatch: pytest.MonkeyPatch, free: int, verdict: DiagnosisLevel) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(host.shutil, "disk_usage", lambda path: usage(1 << 40, 0, free))

    assert findings(site.folder)["disk"].verdict is verdict


def test_the_coordinator_that_was_joined_and_is_not_listed_is_warned_about(site: Any) -> None:
    rewrite(site.folder, _keys(site.folder), f'coordinator_keys = ["{site.public_key}"]')

    found = findings(site.folder)["coordinator"]

    assert found.verdict is DiagnosisLevel.WARN
    assert "coordinator_keys" in found.to_do


def test_a_production_site_with_a_simulated_attester_fails(site: Any) -> None:
    rewrite(site.folder, 'profile = "development"', 'profile = "production"')
    rewrite(site.folder, "unsafe_unattested_coordinator = false", "unsafe_unattested_coordinator = true")

    assert "attester" in failing(site.folder)


@pytest.mark.parametrize("name", ["tdx", "snp", "sgx"])
def test_hardware_that_a_site_names_and_does_not_have_fails(site: Any, name: str) -> None:
    rewrite(site.folder, 'attester = "simulated"', f'attester = "{name}"')

    found = findings(site.folder)["attester"]

    if ThisHost().missing(name):
        assert found.verdict is DiagnosisLevel.FAIL
        assert "is missing (/" in found.found


def test_interfaces_of_hardware_are_found_by_their_files(tmp_path: Path) -> None:
    assert hardware.devices_found(tmp_path) == []
    for name, path in hardware.DEVICES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
        assert name in hardware.devices_found(tmp_path)


def test_no_count_of_rows_or_persons_is_told(site: Any) -> None:
    config = load_site_config(site.folder / "site.toml")
    said = " ".join(f"{f.found} {f.to_do}" for f in host.data(Examined(site.folder, config, NOW)))
    rows = (site.folder / "data/clinic/visits/rows.csv").read_text().count("\n") - 1

    assert str(rows) not in said
    assert "20" not in said


def test_the_command_prints_one_line_a_check_and_exits_zero(site: Any) -> None:
    result = CliRunner().invoke(main, ["doctor", "--config", str(site.folder / "site.toml")])

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == len(list(command.examine(site.folder)))
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}


def test_the_command_exits_three_where_anything_fails(site: Any) -> None:
    (site.folder / "keys/node.key").unlink()

    result = CliRunner().invoke(main, ["doctor", "--config", str(site.folder), "--json"])

    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert {"check": "key node.key", "verdict": "FAIL"}.items() <= next(
        finding for finding in document["findings"] if finding["verdict"] == "FAIL"
    ).items()
