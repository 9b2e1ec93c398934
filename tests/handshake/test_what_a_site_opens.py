"""A site decrypts a model for one order of one attested coordinator; for nothing that was moved, kept or invented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aegis.rounds.attestation_handshake import Attested
from coreason_enclave.attestation.results import RESULT_TYPE, open_result, seal_result
from coreason_enclave.crypto.encryption import KemKey, UnsafeDerivedKemKeys, encrypt_to, info_for
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import AttestationError, EnclaveError, EnvelopeError, Reason
from coreason_enclave.wire.documents import CoordinatorIdentity
from tests.handshake.parties import MODEL, NOW, Order, Pair, no_device, simulated_appraiser
from tests.handshake.test_encryption_to_one_key import SMALL_ORDER

PairOf = Callable[..., Pair]


def refusal(pair: Pair, sent: Order) -> Reason:
    with pytest.raises(EnclaveError) as refused:
        pair.open(sent)
    return refused.value.reason


def result_with(pair: Pair, attested: Attested, *, signer: Signer | None = None, **changes: Any) -> str:
    """The coordinator's result, changed before it signs."""
    return seal_result(attested.report.model_copy(update=changes), signer or pair.signer)


def test_a_site_that_attested_opens_the_model_of_its_order(pair: Pair) -> None:
    attested = pair.attest()
    released = pair.open(pair.order(attested))
    assert released.model == MODEL
    assert released.result == attested.report
    assert released.result.expires_at == NOW + 600


# --- whose result ---------------------------------------------------------------------------------------------------


def test_a_site_that_never_attested_opens_nothing(pair: Pair) -> None:
    sent = pair.order(pair.attest())
    pair.restart_site()
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED
    assert pair.open(pair.order(pair.attest())).model == MODEL


def test_keys_that_are_derived_open_in_another_process_what_the_first_was_sent(pair: Pair) -> None:
    pair.site.kem_keys = UnsafeDerivedKemKeys(bytes(32))
    sent = pair.order(pair.attest())
    for secret, opens in ((bytes(32), True), (bytes([1]) * 32, False)):
        pair.restart_site()
        pair.site.kem_keys = UnsafeDerivedKemKeys(secret)
        if opens:
            assert pair.open(sent).model == MODEL
        else:
            assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


def test_derived_keys_are_one_for_each_challenge_and_gone_with_the_hosts_proof(pair: Pair) -> None:
    pair.site.kem_keys = UnsafeDerivedKemKeys(bytes(32))
    first, second = pair.attest(), pair.attest()
    assert first.report.kem_key != second.report.kem_key
    sent = pair.order(second)
    pair.host.fault = no_device()
    with pytest.raises(AttestationError):
        pair.answer(pair.request())
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


CHANGED = {
    "another site": {"subject": "clinic-2"},
    "another signing key": {"public_key": "ab" * 32},
    "another key to encrypt to": {"kem_key": "ab" * 32},
    "another job": {"job_digest": "ab" * 32},
    "a time long ago": {"appraised_at": NOW - 1000, "expires_at": NOW - 400},
    "the future": {"appraised_at": NOW + 61, "expires_at": NOW + 600},
    "a whole year": {"expires_at": NOW + 31_536_000},
    "a second too long": {"expires_at": NOW + 601},
    "no time at all": {"expires_at": NOW},
}


@pytest.mark.parametrize("changes", CHANGED.values(), ids=list(CHANGED))
def test_a_result_about_something_else_opens_nothing(pair: Pair, changes: dict[str, Any]) -> None:
    attested = pair.attest()
    sent = pair.order(attested, attestation=result_with(pair, attested, **changes))
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


def test_the_result_of_another_coordinator_opens_nothing(pair: Pair) -> None:
    attested = pair.attest()
    sent = pair.order(attested, attestation=result_with(pair, attested, signer=Signer.generate()))
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


def test_what_is_no_result_opens_nothing(pair: Pair) -> None:
    attested = pair.attest()
    for text in ("{}", seal(RESULT_TYPE, b"{}", pair.signer).decode(), seal("x", b"{}", pair.signer).decode()):
        assert refusal(pair, pair.order(attested, attestation=text)) is Reason.ATTESTATION_REQUIRED


def test_a_result_counts_to_its_end_and_a_minutes_skew(pair: Pair) -> None:
    attested = pair.attest()
    sent = pair.order(attested)
    pair.clock.now = NOW + 660
    assert pair.open(sent).model == MODEL
    pair.clock.now = NOW + 661
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


def test_no_reader_of_results_takes_one_that_lives_longer_than_ten_minutes(pair: Pair) -> None:
    attested = pair.attest()
    assert open_result(attested.result, pair.signer.public_hex) == attested.report
    for expires_at in (NOW + 601, NOW, NOW - 1):
        with pytest.raises(EnvelopeError, match="its lifetime exceeds 600 s"):
            open_result(result_with(pair, attested, expires_at=expires_at), pair.signer.public_hex)


# --- whose ciphertext -----------------------------------------------------------------------------------------------


def test_the_ciphertext_of_another_order_is_not_this_ones(pair: Pair) -> None:
    attested = pair.attest()
    one, other = pair.order(attested), pair.order(attested, nonce="cd" * 32)
    assert refusal(pair, Order(one.order, one.envelope, other.ciphertext)) is Reason.UNDECRYPTABLE


def test_no_message_for_another_purpose_key_or_nobody_is_a_model(pair: Pair) -> None:
    attested = pair.attest()
    sent = pair.order(attested)
    own, info = attested.report.kem_key, info_for("model", sent.envelope)
    for ciphertext in (
        b"",
        MODEL,
        encrypt_to(own, MODEL, info_for("update", sent.envelope)),
        encrypt_to(KemKey.generate().public_hex, MODEL, info),
        encrypt_to(own, MODEL, info)[:-1],
    ):
        assert refusal(pair, Order(sent.order, sent.envelope, ciphertext)) is Reason.UNDECRYPTABLE


@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
def test_an_order_whose_update_could_not_be_sent_back_is_refused_before_anything_is_spent(
    pair: Pair, point: bytes
) -> None:
    attested = pair.attest()
    identity = CoordinatorIdentity(kem_key=point.hex(), challenge=attested.identity.challenge)
    assert refusal(pair, pair.order(attested, coordinator=identity)) is Reason.MALFORMED


# --- keys -----------------------------------------------------------------------------------------------------------


def test_each_attestation_makes_a_fresh_key_and_orders_on_their_way_are_still_opened(pair: Pair) -> None:
    earlier = [pair.order(pair.attest()) for _ in range(4)]
    keys = {sent.order.attestation for sent in earlier}
    assert len(keys) == 4
    assert [pair.open(sent).model for sent in earlier] == [MODEL] * 4
    pair.attest()
    assert refusal(pair, earlier[0]) is Reason.ATTESTATION_REQUIRED
    assert pair.open(earlier[1]).model == MODEL


def test_a_key_that_is_replaced_is_erased_and_not_only_forgotten(pair: Pair) -> None:
    pair.attest()
    first = next(iter(pair.site.kem_keys._keys.values()))
    for _ in range(4):
        pair.attest()
    with pytest.raises(EnvelopeError, match="erased"):
        first.decrypt(b"", b"")


FAULTS = [no_device(), RuntimeError("a driver broke"), OSError(5, "I/O error")]


@pytest.mark.parametrize("fault", FAULTS, ids=[type(fault).__name__ for fault in FAULTS])
def test_a_host_that_cannot_prove_itself_any_more_has_no_keys_any_more(pair: Pair, fault: Exception) -> None:
    sent = pair.order(pair.attest())
    key = next(iter(pair.site.kem_keys._keys.values()))
    pair.host.fault = fault
    with pytest.raises(AttestationError) as refused:
        pair.answer(pair.request())
    assert refused.value.reason is Reason.ATTESTATION_UNAVAILABLE
    with pytest.raises(EnvelopeError, match="erased"):
        key.decrypt(b"", b"")
    pair.host.fault = None
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


def test_an_update_without_fresh_evidence_costs_the_keys_as_well(pair: Pair) -> None:
    attested = pair.attest()
    sent = pair.order(attested)
    pair.host.fault = no_device()
    with pytest.raises(AttestationError):
        pair.site.prove_update(sent.order, attested.report.kem_key)
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


# --- while it trains ------------------------------------------------------------------------------------------------


def test_a_site_proves_itself_again_at_four_fifths_of_each_lifetime_and_not_before(pair: Pair) -> None:
    sent = pair.order(pair.attest())
    check = pair.site.watch(sent.order, pair.open(sent))
    asked = []
    for seconds in range(0, 1500, 10):
        pair.clock.now = NOW + seconds
        before = len(pair.host.asked)
        check()
        if len(pair.host.asked) > before:
            asked.append(seconds)
    assert asked == [480, 960, 1440]


def test_it_proves_itself_over_a_new_nonce_each_time(pair: Pair) -> None:
    sent = pair.order(pair.attest())
    check = pair.site.watch(sent.order, pair.open(sent))
    for seconds in (480, 960):
        pair.clock.now = NOW + seconds
        check()
    assert len(set(pair.host.asked)) == len(pair.host.asked) >= 3


def test_a_host_that_fails_meanwhile_stops_and_has_no_keys_any_more(pair: Pair) -> None:
    sent = pair.order(pair.attest())
    check = pair.site.watch(sent.order, pair.open(sent))
    pair.host.fault = no_device()
    pair.clock.now = NOW + 479
    check()
    pair.clock.now = NOW + 480
    with pytest.raises(AttestationError):
        check()
    assert refusal(pair, sent) is Reason.ATTESTATION_REQUIRED


# --- what it asks of a coordinator ----------------------------------------------------------------------------------


def test_every_answer_sets_the_coordinator_a_new_challenge(pair_of: PairOf) -> None:
    pair = pair_of(asks=simulated_appraiser())
    challenges = {pair.answer(pair.request()).challenge for _ in range(5)}
    assert len(challenges) == 5
