"""Both ends of the product accept the golden exchange: it is one that could have happened."""

from __future__ import annotations

import numpy as np
import pytest

from aegis.coordination.admission import Admission
from aegis.coordination.attestation_admission import admit_attestation
from aegis.coordination.orders import RoundRequest
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import gpu_nonce, report_data
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.attestation.evidence import CpuKind, parse_evidence
from coreason_enclave.attestation.results import open_result
from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from coreason_enclave.attestation.verify.nvidia.spdm import parse_report as parse_spdm
from coreason_enclave.attestation.verify.snp import parse_report as parse_snp
from coreason_enclave.crypto.encryption import KemKeysInMemory, info_for
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import AttestationError
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import Profile, Provenance
from coreason_enclave.session.handshake import SiteHandshake
from coreason_enclave.wire.documents import (
    ATTESTATION_REQUEST_TYPE,
    ORDER_TYPE,
    AttestationRequest,
    RoundOrder,
)
from coreason_enclave.wire.roll_call import read_roll_call
from coreason_enclave.wire.updates import SealedMessage, encode_arrays, layout_of
from tests.coreason_enclave.wire import story
from tests.coreason_enclave.wire.golden import read

APPRAISER = Appraiser(AttestationPolicy.simulated_only(), Profile.DEVELOPMENT, NoEndorsements())
EXCHANGE = read("exchange")
KEY = story.KEYS["clinic-1"].public_hex


class OneChallenge:
    """One open challenge, to one subject."""

    def __init__(self, nonce: str, subject: str) -> None:
        self._open = {(nonce, subject)}

    def issue(self, subject: str, now: float) -> str:
        raise AssertionError(f"nobody asks {subject} anything here")

    def redeem(self, nonce: str, subject: str, now: float) -> None:
        if (nonce, subject) not in self._open:
            raise AttestationError("no such challenge is open")
        self._open.remove((nonce, subject))


def payload(name: str, payload_type: str) -> bytes:
    keys = KeyRing({"coordinator": EXCHANGE["coordinator_key"]})
    return open_envelope(EXCHANGE[name].encode(), payload_type, keys).payload


def the_order() -> RoundOrder:
    return RoundOrder.from_payload(payload("round-order", ORDER_TYPE))


def ciphertext(name: str) -> bytes:
    return bytes.fromhex(EXCHANGE[name]["ciphertext"])


def test_the_coordinator_takes_the_attestation_and_concludes_what_its_result_says() -> None:
    request = AttestationRequest.from_payload(payload("attestation-request", ATTESTATION_REQUEST_TYPE))
    proved = admit_attestation(
        SealedMessage(EXCHANGE["attestation"].encode()),
        request,
        KEY,
        challenges=OneChallenge(story.CHALLENGE, "clinic-1"),
        appraiser=APPRAISER,
        now=story.NOW - 14,
    )
    said = open_result(the_order().attestation, EXCHANGE["coordinator_key"])
    assert proved.report.model_copy(update={"policy": said.policy}) == said
    assert proved.challenge == the_order().coordinator.challenge


def _site() -> SiteHandshake:
    key = story.KEM_KEYS["clinic-1"]
    keys = KemKeysInMemory()
    keys.keep(key)
    return SiteHandshake(
        site_id="clinic-1",
        signer=story.KEYS["clinic-1"],
        attester=SimulatedAttester(),
        appraiser=APPRAISER,
        challenges=OneChallenge(story.SITES_CHALLENGE, f"coordinator:{EXCHANGE['coordinator_key']}"),
        clock=lambda: story.NOW + 1,
        kem_keys=keys,
    )


def test_the_site_believes_the_coordinator_and_decrypts_the_model() -> None:
    sent = (EXCHANGE["round-order"].encode(), ciphertext("model"), EXCHANGE["coordinator_key"])
    released = _site().release(the_order(), *sent)
    assert released.model == encode_arrays(story.BASE)
    assert released.result.kem_key == read("update")["payload"]["kem_key"]


def test_the_coordinator_admits_the_update() -> None:
    order = the_order()
    question = RoundRequest(order.job, order.round_number, order.site_id, order.nonce, order.base_model_digest)
    admission = Admission(question, KEY, layout_of(story.BASE), APPRAISER, _reveal)
    admitted = admission.admit(SealedMessage(EXCHANGE["update"].encode(), ciphertext("arrays")), now=story.NOW + 3)
    assert admitted.update.provenance is Provenance.SIMULATED
    assert all(np.array_equal(admitted.update.arrays[name], array) for name, array in story.UPDATE.items())


def _reveal(message: SealedMessage) -> bytes:
    return story.KEM_KEYS["coordinator"].decrypt(message.arrays, info_for("update", message.envelope))


def test_the_roll_call_is_that_of_the_ordered_job() -> None:
    entries = read_roll_call(EXCHANGE["roll_call"].encode(), the_order().job.digest())
    assert {entry.site_id for entry in entries} == set(story.SITES)


@pytest.mark.parametrize("kind", story.HARDWARE)
def test_golden_hardware_evidence_echoes_what_the_product_asks_for(kind) -> None:
    """Its vendors are this repository's own: only a test that brings their roots could believe more of it."""
    evidence = parse_evidence(read(f"attestation-{kind}")["payload"]["evidence"])
    context, report = story.site_binding(story.CHALLENGE).context(), evidence.cpu.report_bytes()
    covered = (parse_snp(report) if kind is CpuKind.SNP else parse_quote(report)).report_data
    assert covered == report_data(context, evidence.gpus)
    nonces = [parse_spdm(gpu.report_bytes()).nonce for gpu in evidence.gpus]
    assert nonces == [gpu_nonce(context)] * len(story.HARDWARE[kind])
