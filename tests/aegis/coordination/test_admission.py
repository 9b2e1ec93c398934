"""Every way in which a site's answer can be wrong, starting from one that is right in everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from aegis.errors import UpdateRefused
from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.crypto.envelope import MAX_ENVELOPE_BYTES, seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import Reason
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import Mechanism, PrivacyConfig, Provenance
from coreason_enclave.wire.documents import ORDER_TYPE, UPDATE_TYPE
from coreason_enclave.wire.updates import SealedMessage, encode_arrays

NOW = 1_800_000_000.0
OTHER = "cd" * 32


def test_an_answer_that_is_right_in_everything_is_admitted_with_what_was_signed(exchange: Any) -> None:
    admitted = exchange.admission().admit(exchange.sealed(), now=NOW)

    assert admitted.update.site_id == "hospital-a"
    assert admitted.update.provenance is Provenance.SIMULATED
    assert admitted.update.digest == admitted.statement.update_digest
    assert admitted.update.num_examples == 5_000
    np.testing.assert_array_equal(admitted.update.arrays["weight"], np.full((1, 3), 0.5, np.float32))


def test_admitting_the_same_answer_twice_gives_the_same_result(exchange: Any) -> None:
    message, admission = exchange.sealed(), exchange.admission()

    first, second = admission.admit(message, now=NOW), admission.admit(message, now=NOW)

    assert first.statement == second.statement


def with_event(**changes: object) -> Callable[[Any], SealedMessage]:
    return lambda exchange: exchange.sealed(event={**exchange.statement()["event"], **changes})


def with_arrays(**changes: np.ndarray) -> Callable[[Any], SealedMessage]:
    return lambda exchange: exchange.sealed(arrays=encode_arrays({**exchange.arrays(), **changes}))


def signed_by_a_stranger(exchange: Any) -> SealedMessage:
    envelope = seal(UPDATE_TYPE, canonical_json(exchange.statement()), Signer.generate())
    return SealedMessage(envelope, exchange.sealed().arrays)


def with_the_name_of_the_right_key(exchange: Any) -> SealedMessage:
    document = json.loads(signed_by_a_stranger(exchange).envelope)
    document["signatures"][0]["keyid"] = exchange.signer.key_id
    return SealedMessage(canonical_json(document), exchange.sealed().arrays)


def sealed_as(payload_type: str, payload: bytes | None = None) -> Callable[[Any], SealedMessage]:
    def make(exchange: Any) -> SealedMessage:
        content = canonical_json(exchange.statement()) if payload is None else payload
        return SealedMessage(seal(payload_type, content, exchange.signer), exchange.sealed().arrays)

    return make


def without(field: str) -> Callable[[Any], SealedMessage]:
    def make(exchange: Any) -> SealedMessage:
        statement = exchange.statement()
        del statement[field]
        return SealedMessage(seal(UPDATE_TYPE, canonical_json(statement), exchange.signer), exchange.sealed().arrays)

    return make


def double_precision(exchange: Any) -> SealedMessage:
    arrays = {name: array.astype(np.float64) for name, array in exchange.arrays().items()}
    return exchange.sealed(arrays=safetensors.numpy.save(arrays))


def exchanged_arrays(exchange: Any) -> SealedMessage:
    doubled = {name: 2 * array for name, array in exchange.arrays().items()}
    return SealedMessage(exchange.sealed().envelope, encode_arrays(doubled))


# In the order of the numbered checks.
REFUSALS: dict[str, tuple[Reason, Callable[[Any], SealedMessage]]] = {
    "1 an envelope of more than a megabyte": (
        Reason.OVERSIZED,
        lambda x: SealedMessage(b" " * (MAX_ENVELOPE_BYTES + 1), x.sealed().arrays),
    ),
    "1 arrays larger than the model could need": (
        Reason.OVERSIZED,
        lambda x: SealedMessage(x.sealed().envelope, bytes(1 << 17)),
    ),
    "2 an envelope that is no JSON": (Reason.MALFORMED, lambda x: SealedMessage(b"\x00", x.sealed().arrays)),
    "2 an empty envelope": (Reason.MALFORMED, lambda x: SealedMessage(b"", b"")),
    "2 a document without a signature": (Reason.MALFORMED, lambda x: SealedMessage(b"{}", b"")),
    "2 a signature by a key that nobody registered": (Reason.UNKNOWN_SIGNER, signed_by_a_stranger),
    "2 a stranger's signature under the registered key's name": (Reason.BAD_SIGNATURE, with_the_name_of_the_right_key),
    "2 a signature over an order, shown as an update": (Reason.WRONG_PAYLOAD_TYPE, sealed_as(ORDER_TYPE)),
    "3 a signed document that is no statement": (Reason.MALFORMED, sealed_as(UPDATE_TYPE, b'{"version":1}')),
    "3 a statement without a nonce": (Reason.MALFORMED, without("nonce")),
    "3 a statement without an event": (Reason.MALFORMED, without("event")),
    "3 a statement with one field too many": (Reason.MALFORMED, lambda x: x.sealed(accuracy=0.9)),
    "3 a delta that is not a number": (Reason.MALFORMED, lambda x: x.sealed(delta="small")),
    "3 a delta of nothing, which no noise can give": (Reason.MALFORMED, lambda x: x.sealed(delta=0.0)),
    "3 a declared size of nobody": (Reason.MALFORMED, lambda x: x.sealed(nominal_units=0)),
    "4 the name of another site under this site's key": (
        Reason.UNKNOWN_SITE,
        lambda x: x.sealed(site_id="hospital-b"),
    ),
    "5 another job's name": (Reason.WRONG_DIGEST, lambda x: x.sealed(job_id="study-2")),
    "5 the right job's name over other terms": (Reason.WRONG_DIGEST, lambda x: x.sealed(job_digest=OTHER)),
    "5 the round before": (Reason.WRONG_ROUND, lambda x: x.sealed(round_number=1)),
    "5 the round after": (Reason.WRONG_ROUND, lambda x: x.sealed(round_number=3)),
    "5 the nonce of another order": (Reason.WRONG_NONCE, lambda x: x.sealed(nonce=OTHER)),
    "5 training from another base model": (Reason.WRONG_DIGEST, lambda x: x.sealed(base_model_digest=OTHER)),
    "6 evidence over another nonce": (
        Reason.ATTESTATION_INVALID,
        lambda x: x.sealed(evidence=x.evidence(nonce=OTHER)),
    ),
    "6 evidence for another signing key": (
        Reason.ATTESTATION_INVALID,
        lambda x: x.sealed(evidence=x.evidence(public_key=Signer.generate().public_hex)),
    ),
    "6 evidence borrowed from another site": (
        Reason.ATTESTATION_INVALID,
        lambda x: x.sealed(evidence=x.evidence(subject="hospital-b")),
    ),
    "6 evidence for another job": (
        Reason.ATTESTATION_INVALID,
        lambda x: x.sealed(evidence=x.evidence(job_digest=OTHER)),
    ),
    "6 evidence of a kind that nobody can verify": (
        Reason.ATTESTATION_INVALID,
        lambda x: x.sealed(evidence={**x.evidence(), "kind": "trust-me"}),
    ),
    "6 evidence that is not base64": (
        Reason.ATTESTATION_INVALID,
        lambda x: x.sealed(evidence={**x.evidence(), "report": "é"}),
    ),
    "6 evidence that carries a verdict of its own": (
        Reason.ATTESTATION_INVALID,
        lambda x: x.sealed(evidence={**x.evidence(), "status": "trusted"}),
    ),
    "6 no evidence": (Reason.ATTESTATION_INVALID, lambda x: x.sealed(evidence={})),
    "7 arrays exchanged after signing": (Reason.WRONG_DIGEST, exchanged_arrays),
    "7 bytes that are no safetensors": (Reason.MALFORMED, lambda x: x.sealed(arrays=b"\x80\x04pickle")),
    "7 no bytes at all": (Reason.MALFORMED, lambda x: x.sealed(arrays=b"")),
    "7 arrays in double precision": (Reason.MALFORMED, double_precision),
    "7 a parameter too many": (Reason.WRONG_SHAPES, with_arrays(extra=np.zeros(1, np.float32))),
    "7 a parameter too few": (
        Reason.WRONG_SHAPES,
        lambda x: x.sealed(arrays=encode_arrays({"weight": x.arrays()["weight"]})),
    ),
    "7 a transposed parameter": (Reason.WRONG_SHAPES, with_arrays(weight=np.zeros((3, 1), np.float32))),
    "7 a single NaN": (Reason.NON_FINITE, with_arrays(bias=np.array([np.nan], np.float32))),
    "7 a single infinity": (Reason.NON_FINITE, with_arrays(bias=np.array([-np.inf], np.float32))),
    "7 a norm just above the job's": (Reason.NORM_EXCEEDED, with_arrays(bias=np.array([10.0], np.float32))),
    "7 a norm whose square overflows single precision": (
        Reason.NORM_EXCEEDED,
        with_arrays(bias=np.array([3e38], np.float32)),
    ),
    "8 less noise than the plan's": (Reason.EVENT_EXCEEDS_PLAN, with_event(noise_multiplier=0.999)),
    "8 a larger sample than the plan's": (Reason.EVENT_EXCEEDS_PLAN, with_event(sample_rate=0.101)),
    "8 one step more than the plan's": (Reason.EVENT_EXCEEDS_PLAN, with_event(steps=5)),
    "8 no step at all": (Reason.EVENT_EXCEEDS_PLAN, with_event(steps=0)),
    "8 training without privacy": (
        Reason.EVENT_EXCEEDS_PLAN,
        lambda x: x.sealed(event={"type": "non_private"}),
    ),
    "8 a larger delta than the plan's": (Reason.EVENT_EXCEEDS_PLAN, lambda x: x.sealed(delta=1.1e-5)),
    "8 a weaker unit than the plan's": (Reason.EVENT_EXCEEDS_PLAN, lambda x: x.sealed(unit="record")),
    "8 rows that changed within a job which does not allow it": (
        Reason.CONTENT_CHANGED,
        lambda x: x.sealed(content_changed=True),
    ),
    "8 a mechanism that nobody can account for": (Reason.ACCOUNTING, with_event(type="laplace")),
    "8 a negative number of steps": (Reason.ACCOUNTING, with_event(steps=-1)),
    "8 noise that is no number": (Reason.ACCOUNTING, with_event(noise_multiplier="1.0")),
    "8 noise beyond every floating-point number": (Reason.ACCOUNTING, with_event(noise_multiplier=10**400)),
    "8 an event with a field too many": (Reason.ACCOUNTING, with_event(shuffled=True)),
    "9 a ledger head without a signature": (Reason.MALFORMED, lambda x: x.sealed(signed_head="{}")),
    "9 a ledger head that another key signed": (
        Reason.UNKNOWN_SIGNER,
        lambda x: x.sealed(signed_head=x.head(signer=Signer.generate())),
    ),
    "9 the signed ledger head of another site": (
        Reason.NOT_ADDRESSED_TO_ME,
        lambda x: x.sealed(signed_head=x.head(site_id="hospital-b")),
    ),
    "9 an older ledger head than the one it names": (Reason.WRONG_DIGEST, lambda x: x.sealed(signed_head=x.head(2))),
    "9 an update where a ledger head belongs": (
        Reason.WRONG_PAYLOAD_TYPE,
        lambda x: x.sealed(signed_head=x.sealed().envelope.decode()),
    ),
}


@pytest.mark.parametrize(("reason", "falsify"), REFUSALS.values(), ids=REFUSALS)
def test_an_answer_is_refused_for(exchange: Any, reason: Reason, falsify: Callable[[Any], SealedMessage]) -> None:
    admission, message = exchange.admission(), falsify(exchange)
    before = deepcopy(message)

    with pytest.raises(UpdateRefused) as refused:
        admission.admit(message, now=NOW)

    assert (refused.value.reason, refused.value.site_id) == (reason, "hospital-a")
    assert message == before
    assert exchange.admission().admit(exchange.sealed(), now=NOW).update.site_id == "hospital-a"


def test_a_production_coordinator_refuses_simulated_evidence(exchange: Any) -> None:
    with pytest.raises(UpdateRefused) as refused:
        exchange.admission(Profile.PRODUCTION).admit(exchange.sealed(), now=NOW)

    assert refused.value.reason is Reason.ATTESTATION_UNACCEPTABLE


def test_the_answer_of_one_exchange_is_worth_nothing_in_another(exchange: Any, exchange_of: Any) -> None:
    later = exchange_of(signer=exchange.signer, nonce="77" * 32)

    with pytest.raises(UpdateRefused) as refused:
        later.admission().admit(exchange.sealed(), now=NOW)

    assert refused.value.reason is Reason.WRONG_NONCE


def test_the_first_check_that_fails_decides(exchange: Any) -> None:
    wrong_in_two_ways = exchange.sealed(round_number=1, event={"type": "non_private"})

    with pytest.raises(UpdateRefused) as refused:
        exchange.admission().admit(wrong_in_two_ways, now=NOW)

    assert refused.value.reason is Reason.WRONG_ROUND


ACCEPTABLE = {
    "more noise than asked for": {"noise_multiplier": 2.0},
    "a smaller sample than asked for": {"sample_rate": 0.05},
    "fewer steps than asked for": {"steps": 1},
}


@pytest.mark.parametrize("changes", ACCEPTABLE.values(), ids=ACCEPTABLE)
def test_a_site_may_be_stricter_than_the_plan(exchange: Any, changes: dict[str, object]) -> None:
    assert exchange.admission().admit(with_event(**changes)(exchange), now=NOW).update.event is not None


def test_a_norm_at_the_limit_is_admitted(exchange: Any) -> None:
    arrays = {"weight": np.zeros((1, 3), np.float32), "bias": np.array([10.0], np.float32)}

    assert exchange.admission().admit(exchange.sealed(arrays=encode_arrays(arrays)), now=NOW)


def test_a_non_private_job_admits_non_private_events_alone(exchange_of: Any, job_with: Any) -> None:
    twin = exchange_of(job=job_with(privacy=PrivacyConfig(mechanism=Mechanism.NON_PRIVATE)))

    assert twin.admission().admit(twin.sealed(event={"type": "non_private"}), now=NOW)
    with pytest.raises(UpdateRefused) as refused:
        twin.admission().admit(twin.sealed(), now=NOW)
    assert refused.value.reason is Reason.EVENT_EXCEEDS_PLAN


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_byte_changed_on_the_wire_is_refused_or_changes_nothing(exchange: Any, position: int, value: int) -> None:
    """Base64 ignores a few bits at its end; whatever is admitted is what was signed."""
    message = exchange.sealed()
    whole = bytearray(message.envelope + message.arrays)
    whole[position % len(whole)] = value
    cut = len(message.envelope)

    try:
        admitted = exchange.admission().admit(SealedMessage(bytes(whole[:cut]), bytes(whole[cut:])), now=NOW)
    except UpdateRefused:
        return

    assert admitted.statement.model_dump(mode="json") == exchange.statement()
    assert bytes(whole[cut:]) == message.arrays


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    field=st.sampled_from(["site_id", "round_number", "event", "delta", "evidence", "metrics", "ledger_head", "unit"]),
    value=JSON,
)
def test_nothing_that_a_registered_site_signs_can_do_worse_than_be_refused(
    exchange: Any, field: str, value: object
) -> None:
    text = json.dumps({**exchange.statement(), field: value}).encode()
    message = SealedMessage(seal(UPDATE_TYPE, text, exchange.signer), exchange.sealed().arrays)

    with suppress(UpdateRefused):
        exchange.admission().admit(message, now=NOW)


@given(name=st.sampled_from(["noise_multiplier", "sample_rate", "steps", "type"]), value=JSON)
def test_nothing_that_an_event_claims_can_do_worse_than_be_refused(exchange: Any, name: str, value: object) -> None:
    event = {**exchange.statement()["event"], name: value}
    text = json.dumps({**exchange.statement(), "event": event}).encode()
    message = SealedMessage(seal(UPDATE_TYPE, text, exchange.signer), exchange.sealed().arrays)

    try:
        admitted = exchange.admission().admit(message, now=NOW)
    except UpdateRefused:
        return

    assert 1 <= admitted.update.event.steps <= 4
    assert admitted.update.event.noise_multiplier >= 1.0
    assert admitted.update.event.sample_rate <= 0.1


@given(data=st.binary(max_size=200), keep=st.integers(0, 200))
def test_no_bytes_in_place_of_arrays_can_do_worse_than_be_refused(exchange: Any, data: bytes, keep: int) -> None:
    payload = exchange.sealed().arrays[:keep] + data

    try:
        admitted = exchange.admission().admit(exchange.sealed(arrays=payload), now=NOW)
    except UpdateRefused:
        return

    assert set(admitted.update.arrays) == {"weight", "bias"}
