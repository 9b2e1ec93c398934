"""An attester is what was named, or a refusal: nothing else takes its place."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import coreason_enclave.hardware
from coreason_enclave.attestation.attestation_policy import AttesterName
from coreason_enclave.attestation.binding import gpu_nonce, report_data
from coreason_enclave.errors import AttestationError, ConfigurationError, Reason
from coreason_enclave.hardware.devices import HostDevices
from coreason_enclave.hardware.discovery import DEVICES, HARDWARE, ThisHost, attester_named, devices_looked_for
from tests.coreason_enclave.hardware.devices import GramineTree, NoDevices, TsmTree
from tests.coreason_enclave.hardware.hosts import KINDS, FakeNvml, sgx_quote, tree_of, verified, verified_gpu

ROOM = Path(coreason_enclave.hardware.__file__).parent


def test_every_hardware_has_a_name_with_gpus_and_one_without() -> None:
    assert HARDWARE == ("tdx", "tdx+nvidia", "snp", "snp+nvidia", "sgx", "sgx+nvidia")


def test_a_site_can_name_exactly_the_attesters_that_there_are() -> None:
    takes = TypeAdapter(AttesterName).validate_python

    assert [takes(name) for name in ("simulated", *HARDWARE)] == ["simulated", *HARDWARE]
    for name in ("nvidia", "simulated+nvidia", "TDX", "tdx+nvidia+nvidia", "tdx\n"):
        with pytest.raises(ValidationError):
            takes(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gpus", [False, True])
def test_a_named_attester_asks_the_devices_of_its_name(kind: str, gpus: bool) -> None:
    name = f"{kind}+nvidia" if gpus else kind

    evidence = ThisHost(tree_of(kind), FakeNvml()).attester(name).produce(b"context")

    assert verified(evidence.cpu, report_data(b"context", evidence.gpus)).kind == kind
    assert len([verified_gpu(gpu, gpu_nonce(b"context")) for gpu in evidence.gpus]) == (2 if gpus else 0)


@pytest.mark.parametrize("named", HARDWARE)
@pytest.mark.parametrize("there", KINDS)
def test_no_other_hardware_takes_the_place_of_the_named(named: str, there: str) -> None:
    if named.startswith(there):
        return
    attester = ThisHost(tree_of(there), FakeNvml()).attester(named)

    with pytest.raises(AttestationError) as error:
        attester.produce(b"context")
    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE


@pytest.mark.parametrize("name", HARDWARE)
def test_a_host_without_the_named_gpus_or_processor_gives_no_part_of_it(name: str) -> None:
    with pytest.raises(AttestationError) as error:
        ThisHost(NoDevices()).attester(name).produce(b"context")
    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE


@pytest.mark.parametrize(
    "name", ["", "SIMULATED", "nvidia", "+nvidia", "simulated+nvidia", "tdx+", "tdx+nvidia+nvidia"]
)
def test_a_name_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="known: simulated, unattested, tdx, "):
        attester_named(name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hardware_that_is_there_is_detected(kind: str) -> None:
    tree = tree_of(kind)
    assert ThisHost(tree).detected() == kind

    if isinstance(tree, TsmTree):
        tree.others = {DEVICES["NVIDIA GPU"]}
        assert ThisHost(tree).detected() == f"{kind}+nvidia"  # never silently without


def test_where_nothing_is_there_everything_that_was_looked_for_is_told() -> None:
    with pytest.raises(AttestationError, match="no device can attest") as error:
        ThisHost(NoDevices()).detected()

    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE
    for path in DEVICES.values():
        assert f"/{path}: no" in str(error.value)
    assert "pynvml" in str(error.value)


def test_a_provider_that_is_not_known_is_nothing_that_can_attest() -> None:
    with pytest.raises(AttestationError, match="no device can attest"):
        ThisHost(TsmTree("arm_cca_guest", sgx_quote)).detected()


def test_between_two_processors_a_person_decides() -> None:
    both = TsmTree("tdx_guest", sgx_quote, others={DEVICES["SGX under Gramine"]})

    with pytest.raises(AttestationError, match=r"several processors attest \(tdx, sgx\): name one"):
        ThisHost(both).detected()


def test_what_is_missing_for_a_name_is_told_by_its_files_alone(tmp_path: Path) -> None:
    host = ThisHost(HostDevices(tmp_path))

    assert [missing.where for missing in host.missing("snp")] == ["/sys/kernel/config/tsm/report"]
    assert {missing.name for missing in host.missing("sgx+nvidia")} >= {"SGX under Gramine", "NVIDIA GPU"}
    (tmp_path / DEVICES["configfs-tsm"]).mkdir(parents=True)
    assert host.missing("snp") == ()


def test_the_product_looks_at_fixed_places_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = devices_looked_for()
    for path in DEVICES.values():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for name in ("ROOT", "SYSROOT", "AEGIS_ROOT", "AEGIS_DEVICES", "AEGIS_ATTESTER", "AEGIS_SIMULATED", "TSM_REPORT"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert devices_looked_for() == before
    assert not inspect.signature(devices_looked_for).parameters
    assert list(inspect.signature(attester_named).parameters) == ["name"]


def environment_reads(source: str) -> list[str]:
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    names |= {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    return sorted(names & {"environ", "environb", "getenv", "getenvb"})


def test_no_collector_reads_the_environment() -> None:
    assert {path.name: environment_reads(path.read_text()) for path in ROOM.glob("*.py")} == {
        path.name: [] for path in ROOM.glob("*.py")
    }
    assert environment_reads("import os\nos.environ['A']") == ["environ"]
    assert environment_reads("from os import getenv") == ["getenv"]


def test_simulated_is_made_only_where_it_was_named() -> None:
    host = ThisHost(GramineTree(sgx_quote))

    assert host.attester("simulated").kind == "simulated"
    assert host.attester("sgx").kind == "sgx"
    assert "simulated" not in HARDWARE
    assert attester_named("tdx").kind == "tdx"
