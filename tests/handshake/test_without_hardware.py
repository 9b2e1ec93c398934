"""A production federation on hosts that have nothing to prove with: nothing is trained, released or pretended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from aegis.errors import RunPaused
from aegis.federation.job_files import dump_job
from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.runtimes.in_process import client_app, initial_model
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.crypto.signing import write_private
from coreason_enclave.hardware.discovery import DEVICES
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.policy import Profile
from coreason_enclave.wire.updates import encode_arrays
from tests.aegis.commands.conftest import invoke
from tests.conftest import SmallFederation, SmallSite
from tests.coreason_enclave.attestation.appraisal import hosts
from tests.handshake.parties import Tapped, UnderSecretKeys, with_handshake
from tests.handshake.test_hardware_evidence_end_to_end import accepts
from tests.support.studies import MakeStudy, Study, a_job

NAMES = ("clinic-1", "clinic-2", "clinic-3")
POLICY = accepts(dict.fromkeys(NAMES, CpuKind.SNP))
PRODUCTION = {
    "profile": "production",
    "attester": "snp",
    "lineage": {"public": False},
    "policy": {"unsafe_unattested_coordinator": True},
}

pytestmark = pytest.mark.skipif(
    any(Path("/", path).exists() for path in DEVICES.values()), reason="this host has a device to attest with"
)


@pytest.fixture
def three(study: MakeStudy) -> Study:
    return UnderSecretKeys.of(study(3, **PRODUCTION))


def run_over(study: Study, wire: Tapped, adapt: Any = None, **policy: Any) -> None:
    """The job of the study under a production policy, appraised under the vendors' pinned roots."""
    wanted = AttestationPolicy.model_validate({**POLICY, **policy})
    study.run(
        a_job(study.federation),
        adapt,
        grid=wire,
        profile=Profile.PRODUCTION,
        attester=None,
        appraiser=Appraiser(wanted, Profile.PRODUCTION, NoEndorsements()),
    )


def assert_nothing_happened(study: Study, wire: Tapped) -> None:
    """No training step, no model, not even encrypted."""
    assert study.reserved_rounds() == {name: [] for name in NAMES}
    assert {passed.kind for passed in wire.tap.passed} == {"query.enrol", "query.attest"}
    model = encode_arrays(initial_model(a_job(study.federation)))
    assert all(not passed.message.arrays and model not in passed.bytes for passed in wire.tap.passed)
    assert study.history() == ()


def test_sites_without_hardware_pause_a_production_run_before_anything_was_spent_or_sent(three: Study) -> None:
    wire = Tapped()
    with pytest.raises(RunPaused, match=r"clinic-1.*attestation_unavailable"):
        run_over(three, wire)
    assert_nothing_happened(three, wire)
    refused = [line for line in three.audit() if line["reason"] == "attestation_unavailable"]
    assert {line["details"]["site"] for line in refused} == set(NAMES)
    assert {quarantine.reason for quarantine in three.state().quarantine.values()} == {"attestation_unavailable"}
    for site in three.sites:
        logged = [line for line in site.log() if line["outcome"] == "refused"]
        assert {line["reason"] for line in logged} == {"attestation_unavailable"}
        assert all("configfs" in line["details"]["message"] for line in logged)  # what was looked for, in its own log
    assert "simulated" not in (three.folder / "audit.jsonl").read_text()


def patched(attester: Any) -> Callable[[Any], Any]:
    """A site whose program somebody changed to prove itself with something else."""

    def adapt(site: Any) -> Any:
        return client_app(with_handshake(site.session, attester=attester))

    return adapt


@pytest.mark.parametrize("kinds", [["snp"], ["snp", "simulated"]])
def test_simulated_evidence_of_patched_sites_is_refused_whatever_the_policy_lists(
    three: Study, kinds: list[str]
) -> None:
    wire = Tapped()
    with pytest.raises(RunPaused, match="attestation_unacceptable"):
        run_over(three, wire, patched(SimulatedAttester()), kinds=kinds)
    assert_nothing_happened(three, wire)
    assert "simulated evidence proves nothing" in str(three.audit())


def test_evidence_of_our_own_vendors_is_refused_under_the_pinned_roots(three: Study) -> None:
    wire = Tapped()
    with pytest.raises(RunPaused, match=r"attestation_(invalid|unavailable|unacceptable)"):
        run_over(three, wire, patched(hosts.Host(CpuKind.SNP)))
    assert_nothing_happened(three, wire)


# --- through the command line ---------------------------------------------------------------------------------------


class Founded:
    """A production federation's folder, with local sites, and a job for it."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.root, self.folder = root, FederationFolder(root / "federation")
        federation = SmallFederation(self.folder.path / "sites")
        write_private(self.folder.coordinator / "signing.key", bytes([7]) * 32)
        self.sites: dict[str, SmallSite] = {
            name: federation.create(name, rows=number, **PRODUCTION) for number, name in enumerate(NAMES, start=1)
        }
        keys = {name: site.public_key for name, site in self.sites.items()}
        fields = {"profile": "production", "delta": 1e-5, "public_keys": keys, "attestation": POLICY, **changes}
        self.folder.create(FederationConfig.model_validate(fields))
        (root / "job.yaml").write_text(dump_job(federation.job(min_clients=3, rounds=2)))

    @property
    def out(self) -> Path:
        return self.root / "run"

    def run(self) -> Result:
        return invoke("run", self.root / "job.yaml", "--federation", self.folder.path, "--out", self.out)

    def reservations(self) -> list[Any]:
        return [entry for site in self.sites.values() for entry in site.ledger_entries() if entry["type"] == "reserved"]


def test_aegis_run_pauses_with_one_clear_message_and_no_step_was_taken(tmp_path: Path) -> None:
    founded = Founded(tmp_path)
    result = founded.run()
    assert result.exit_code == 4, result.output
    assert "attestation_unavailable" in result.output
    assert "clinic-1" in result.output
    assert "Traceback" not in result.output
    assert founded.reservations() == []
    audit = [json.loads(line) for line in (founded.out / "audit.jsonl").read_text().splitlines()]
    refused = [line for line in audit if line["reason"] == "attestation_unavailable"]
    assert {line["details"]["site"] for line in refused} == set(NAMES)
    assert not (founded.out / "model.safetensors").exists()
    assert not (founded.out / "outcome.json").exists()
    assert founded.run().exit_code == 4  # and again, from where it stands


def test_aegis_run_refuses_a_production_federation_that_does_not_say_what_sites_have_to_prove(tmp_path: Path) -> None:
    founded = Founded(tmp_path, attestation=None)
    result = founded.run()
    assert result.exit_code == 2, result.output
    assert "[attestation]" in result.output
    assert founded.reservations() == []


def test_aegis_run_says_so_where_the_coordinator_itself_should_prove_something_and_cannot(tmp_path: Path) -> None:
    founded = Founded(tmp_path, attester="tdx")
    result = founded.run()
    assert result.exit_code == 4, result.output
    assert founded.reservations() == []
    assert founded.sites["clinic-1"].log() != []


def test_no_production_federation_attests_with_the_simulated_attester(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="simulated needs profile development"):
        Founded(tmp_path, attester="simulated")
