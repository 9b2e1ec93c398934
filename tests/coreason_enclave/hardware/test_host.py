"""The evidence of a whole host: what the GPUs said is under the processor's report."""

from __future__ import annotations

import pytest

from coreason_enclave.attestation.binding import gpu_nonce, report_data
from coreason_enclave.attestation.evidence import Evidence, GpuReport, parse_evidence
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.hardware.host import HostAttester
from coreason_enclave.hardware.nvidia import NvidiaCollector
from tests.coreason_enclave.hardware.hosts import KINDS, FakeNvml, collector_of, tree_of, verified, verified_gpu

CONTEXT = b"context"


def evidence_of(kind: str = "tdx", nvml: FakeNvml | None = None, context: bytes = CONTEXT) -> Evidence:
    return HostAttester(collector_of(kind, tree_of(kind)), NvidiaCollector(nvml or FakeNvml())).produce(context)


def refused(nvml: FakeNvml) -> str:
    with pytest.raises(AttestationError) as error:
        evidence_of(nvml=nvml)
    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE
    assert not nvml.is_open
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_processor_and_gpus_verify_over_what_a_relying_party_computes_itself(kind: str) -> None:
    evidence = evidence_of(kind)

    assert [verified_gpu(gpu, gpu_nonce(CONTEXT)).kind for gpu in evidence.gpus] == ["nvidia", "nvidia"]
    assert verified(evidence.cpu, report_data(CONTEXT, evidence.gpus)).kind == kind
    assert parse_evidence(evidence.model_dump(mode="json")) == evidence


def test_evidence_of_one_context_does_not_serve_another() -> None:
    evidence = evidence_of()

    with pytest.raises(VerificationRefused) as error:
        verified(evidence.cpu, report_data(b"another", evidence.gpus))
    assert error.value.refusal is Refusal.REPORT_DATA
    with pytest.raises(VerificationRefused) as error:
        verified_gpu(evidence.gpus[0], gpu_nonce(b"another"))
    assert error.value.refusal is Refusal.NONCE


def test_the_processors_report_is_over_these_gpus_in_this_order() -> None:
    evidence = evidence_of()
    other_run = evidence_of(context=CONTEXT).gpus

    for gpus in ((), evidence.gpus[::-1], evidence.gpus[:1], other_run):
        with pytest.raises(VerificationRefused):
            verified(evidence.cpu, report_data(CONTEXT, gpus))


def test_a_gpu_that_covers_another_nonce_is_a_failure() -> None:
    assert "GPU 0 covers other bytes" in refused(FakeNvml(asked_for=bytes(32)))


@pytest.mark.parametrize("empty", ["report", "certificates"])
def test_a_gpu_with_an_empty_answer_is_a_failure(empty: str) -> None:
    assert "empty" in refused(FakeNvml(empty=empty))


def test_a_host_without_gpus_is_a_failure_where_gpus_were_named() -> None:
    assert "sees no GPU" in refused(FakeNvml(names=()))


def test_gpus_outside_confidential_computing_mode_are_a_failure() -> None:
    assert "confidential-computing mode" in refused(FakeNvml(on=False))


def test_a_make_of_gpu_that_is_not_known_is_a_failure() -> None:
    assert "HOPPER is" in refused(FakeNvml(arch="architecture 10"))


def test_more_gpus_than_evidence_holds_are_a_failure() -> None:
    assert "17 GPUs answered" in refused(FakeNvml(names=("",) * 17))


def test_a_collector_that_forgets_the_gpus_is_found() -> None:
    class Forgetful:
        def collect(self, nonce: bytes) -> tuple[GpuReport, ...]:
            return ()

    with pytest.raises(AttestationError, match="0 GPUs answered"):
        HostAttester(collector_of("tdx", tree_of("tdx")), Forgetful()).produce(CONTEXT)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_only_32_bytes_are_taken_as_a_nonce(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NvidiaCollector(FakeNvml()).collect(bytes(length))
