"""The section "Real rows without a TEE" of ``docs/OPERATIONS.md``, carried out over Flower as it stands there."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from aegis.federation.job_files import dump_job
from aegis.federation.registry import FederationFolder
from coreason_enclave.crypto.signing import write_private
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.flower.deployments import wait_for
from tests.conftest import SmallFederation
from tests.handshake.test_real_rows_without_a_tee import KEY, NAMES, UNATTESTED
from tools import check_docs

PAGE = Path(__file__).resolve().parents[4] / "docs" / "OPERATIONS.md"
SECTION = PAGE.read_text(encoding="utf-8").split("## Real rows without a TEE", 1)[1].split("\n## ", 1)[0]
LINES = [line for block in check_docs.parse(SECTION).blocks if block.info == "sh" for line in block.body.splitlines()]
EVERYWHERE = "--host 0.0.0.0 --public-address fl.example.org:9443"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes that die with their parent need Linux")


def line_of(*words: str) -> str:
    (found,) = [line for line in LINES if all(word in line for word in words)]
    return found


def command_of(line: str, root: Path, site: str = "clinic-1") -> list[str]:
    """The line for one site, under ``root`` and on loopback, with this coordinator's key."""
    here = line.replace(EVERYWHERE, "").replace("clinic-1", site).replace("/srv", str(root))
    program, *words = shlex.split(here)
    if "--coordinator-key" in words:
        words[words.index("--coordinator-key") + 1] = KEY
    return [str(Path(sys.executable).parent / program), *words]


def typed(line: str, root: Path, site: str = "clinic-1") -> str:
    done = subprocess.run(command_of(line, root, site), cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_page_leads_both_ends_from_empty_folders_to_a_verified_run_over_private_rows(tmp_path: Path) -> None:
    federation, study = SmallFederation(tmp_path), FederationFolder(tmp_path / "study")
    write_private(study.coordinator / "signing.key", bytes([7]) * 32)
    (tmp_path / "study.yaml").write_text(dump_job(federation.job(min_clients=2, rounds=2)))
    typed(line_of("federation init"), tmp_path)
    for number, site in enumerate(NAMES, start=1):
        federation.create(site, rows=number, **UNATTESTED)
        for words in (("coreason-enclave init",), ("coreason-enclave request",), ("federation admit",)):
            typed(line_of(*words), tmp_path, site)
    with ExitStack() as running:
        typed(line_of("federation up"), tmp_path)
        running.callback(typed, "aegis federation down /srv/study", tmp_path)
        for site in NAMES:
            typed(line_of("coreason-enclave join"), tmp_path, site)
            assert "NOT ATTESTED" in typed(line_of("coreason-enclave doctor"), tmp_path, site)
            agent = command_of(line_of("coreason-enclave agent"), tmp_path, site)
            running.callback(terminate, spawn(agent, log=tmp_path / f"{site}.log"))

        def connected() -> bool:
            status = json.loads(typed("aegis federation status /srv/study --json", tmp_path))
            return all(status["sites"][site].get("connected") for site in NAMES)

        wait_for(connected, "both sites are connected")
        assert "NOT ATTESTED" in typed("aegis federation status /srv/study", tmp_path)
        ran = typed(line_of("aegis run"), tmp_path)
    for site in NAMES:
        typed(line_of("export-ledger"), tmp_path, site)
    verified = typed(line_of("aegis verify"), tmp_path)

    assert "profile unattested, NOT ATTESTED" in ran
    assert "provenance claimed" in ran
    assert "! NOT ATTESTED" in verified
    assert "not attested, by the profile" in verified
    assert "VERIFIED" in verified
    for site in NAMES:
        said = (tmp_path / f"{site}.log").read_text()
        assert "not attested" in said
        assert '"provenance": "attested"' not in said
