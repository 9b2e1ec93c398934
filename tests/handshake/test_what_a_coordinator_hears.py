"""A site's answer to a challenge, and everything that a site, another site or the carrier could make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aegis.errors import UpdateRefused
from aegis.rounds.attestation_handshake import Attested
from coreason_enclave.attestation.binding import Binding, Role
from coreason_enclave.attestation.results import open_result
from coreason_enclave.crypto.encryption import KemKey, encrypt_to, info_for
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import AttestationError, ConfigurationError, EnvelopeError, Reason
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import Provenance
from coreason_enclave.wire.documents import ATTESTATION_TYPE, ENROLMENT_TYPE, SiteAttestation
from coreason_enclave.wire.updates import SealedMessage
from tests.coreason_enclave.attestation.appraisal import hosts
from tests.handshake.parties import MODEL, NOW, SITE, Host, Pair, simulated_appraiser
from tests.handshake.test_encryption_to_one_key import SMALL_ORDER

PairOf = Callable[..., Pair]


def refusal(pair: Pair, message: SealedMessage) -> Reason:
    with pytest.raises(UpdateRefused) as refused:
        pair.receive(message)
    assert pair.coordinator.attested(SITE, pair.job) is None  # whatever was held of it before is gone
    return refused.value.reason


def resigned(pair: Pair, attestation: SiteAttestation, **changes: Any) -> SealedMessage:
    """The site's own attestation, its evidence collected anew over a changed binding and correctly signed."""
    bound = {
        "role": Role.SITE,
        "nonce": attestation.nonce,
        "public_key": attestation.public_key,
        "kem_key": attestation.kem_key,
        "subject": attestation.site_id,
        "job_digest": attestation.job_digest,
        **changes,
    }
    evidence = SimulatedAttester().produce(Binding(**bound).context()).model_dump(mode="json")
    return pair.sealed(attestation, evidence=evidence)


def test_a_site_that_proves_itself_is_held_with_a_signed_result_of_ten_minutes(pair: Pair) -> None:
    attested = pair.attest()
    report = open_result(attested.result, pair.signer.public_hex)
    assert report == attested.report
    assert report.provenance is Provenance.SIMULATED
    assert (report.subject, report.public_key) == (SITE, pair.site_signer.public_hex)
    assert (report.appraised_at, report.expires_at) == (NOW, NOW + 600)
    assert pair.coordinator.attested(SITE, pair.job) is attested


# --- replayed, late, old --------------------------------------------------------------------------------------------


def test_an_answer_counts_once(pair: Pair) -> None:
    message = pair.sealed(pair.answer(pair.request()))
    pair.receive(message)
    assert refusal(pair, message) is Reason.ATTESTATION_REQUIRED


def test_an_answer_to_an_earlier_challenge_is_none_to_this_one(pair: Pair) -> None:
    earlier = pair.sealed(pair.answer(pair.request()))
    latest = pair.request()
    assert refusal(pair, earlier) is Reason.WRONG_NONCE
    pair.receive(pair.sealed(pair.answer(latest)))


def test_an_answer_that_comes_after_two_minutes_has_to_be_given_anew(pair: Pair) -> None:
    message = pair.sealed(pair.answer(pair.request()))
    pair.clock.now = NOW + 121
    assert refusal(pair, message) is Reason.ATTESTATION_REQUIRED


def test_a_coordinator_that_was_restarted_knows_no_site_and_takes_no_earlier_answer(pair: Pair) -> None:
    pair.attest()
    answered = pair.sealed(pair.answer(pair.request()))
    pair.restart_coordinator()
    assert pair.coordinator.attested(SITE, pair.job) is None
    pair.request()
    assert refusal(pair, answered) is Reason.WRONG_NONCE
    assert pair.open(pair.order(pair.attest())).model == MODEL


# --- swapped, moved, borrowed ---------------------------------------------------------------------------------------

SWAPPED = {
    "the signing key": ({"public_key": "ab" * 32}, Reason.UNKNOWN_SIGNER),
    "the key to encrypt to": ({"kem_key": KemKey.generate().public_hex}, Reason.ATTESTATION_INVALID),
    "the site": ({"site_id": "clinic-2"}, Reason.UNKNOWN_SITE),
    "the job": ({"job_digest": "ab" * 32}, Reason.WRONG_DIGEST),
    "the job's name": ({"job_id": "study-2"}, Reason.WRONG_DIGEST),
    "the challenge": ({"nonce": "ab" * 32}, Reason.WRONG_NONCE),
    "the evidence by nothing": ({"evidence": {}}, Reason.ATTESTATION_INVALID),
    "the evidence by a claim": ({"evidence": {"status": "trusted"}}, Reason.ATTESTATION_INVALID),
}


@pytest.mark.parametrize(("changes", "reason"), SWAPPED.values(), ids=list(SWAPPED))
def test_whoever_swaps_one_thing_after_the_evidence_was_made_is_refused(
    pair: Pair, changes: dict[str, Any], reason: Reason
) -> None:
    assert refusal(pair, pair.sealed(pair.answer(pair.request()), **changes)) is reason


OTHERWISE = {
    "another challenge": {"nonce": "ab" * 32},
    "another signing key": {"public_key": "ab" * 32},
    "another key to encrypt to": {"kem_key": "ab" * 32},
    "another site": {"subject": "clinic-2"},
    "another job": {"job_digest": "ab" * 32},
    "the other end's role": {"role": Role.COORDINATOR},
}


@pytest.mark.parametrize("changes", OTHERWISE.values(), ids=list(OTHERWISE))
def test_evidence_that_covers_something_else_is_refused(pair: Pair, changes: dict[str, Any]) -> None:
    assert refusal(pair, resigned(pair, pair.answer(pair.request()), **changes)) is Reason.ATTESTATION_INVALID
    pair.receive(resigned(pair, pair.answer(pair.request())))  # nothing but that was wrong with it


def test_one_site_cannot_show_what_another_proved(pair_of: PairOf) -> None:
    ours, theirs = pair_of(), pair_of(name="clinic-2", site_signer=Signer.from_seed(bytes([9]) * 32))
    request = ours.request()
    shown = theirs.site.answer(request.model_copy(update={"site_id": "clinic-2"}), ours.signer.public_hex)
    assert refusal(ours, theirs.sealed(shown)) is Reason.UNKNOWN_SIGNER
    request = ours.request()
    shown = theirs.site.answer(request.model_copy(update={"site_id": "clinic-2"}), ours.signer.public_hex)
    borrowed = ours.sealed(shown, site_id=SITE, public_key=ours.site_signer.public_hex)
    assert refusal(ours, borrowed) is Reason.ATTESTATION_INVALID


def test_a_coordinators_own_evidence_cannot_be_turned_around(pair: Pair) -> None:
    """Whoever has the site's signing key and no hardware shows the coordinator what the coordinator showed it."""
    attested = pair.attest()
    answer = pair.answer(pair.request())
    mirrored = pair.sealed(answer, evidence=attested.identity.evidence, kem_key=attested.identity.kem_key)
    assert refusal(pair, mirrored) is Reason.ATTESTATION_INVALID


@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
def test_a_site_that_proves_a_key_which_nothing_can_be_encrypted_to_is_refused_and_nothing_breaks(
    pair: Pair, point: bytes
) -> None:
    answer = pair.answer(pair.request()).model_copy(update={"kem_key": point.hex()})
    assert refusal(pair, resigned(pair, answer)) is Reason.MALFORMED


def test_evidence_that_the_policy_does_not_accept_is_refused(pair_of: PairOf) -> None:
    pair = pair_of(appraiser=simulated_appraiser(kinds=["snp"]))
    assert refusal(pair, pair.sealed(pair.answer(pair.request()))) is Reason.ATTESTATION_UNACCEPTABLE
    pair = pair_of()
    snp = hosts.Host(hosts.CpuKind.SNP).produce(b"").model_dump(mode="json")
    assert refusal(pair, pair.sealed(pair.answer(pair.request()), evidence=snp)) is Reason.ATTESTATION_UNACCEPTABLE


# --- not even an attestation ----------------------------------------------------------------------------------------


def test_what_is_no_attestation_is_refused(pair: Pair) -> None:
    answer = pair.answer(pair.request())
    message, payload = pair.sealed(answer), answer.canonical()
    stranger = SealedMessage(seal(ATTESTATION_TYPE, payload, Signer.generate()))
    assert refusal(pair, SealedMessage(message.envelope, b"x")) is Reason.OVERSIZED
    assert refusal(pair, SealedMessage(message.envelope, b"", b"x")) is Reason.OVERSIZED
    assert refusal(pair, SealedMessage(b"x" * ((1 << 20) + 1))) is Reason.OVERSIZED
    assert refusal(pair, SealedMessage(b"")) is Reason.MALFORMED
    assert refusal(pair, stranger) is Reason.UNKNOWN_SIGNER
    other_type = SealedMessage(seal(ENROLMENT_TYPE, payload, pair.site_signer))
    assert refusal(pair, other_type) is Reason.WRONG_PAYLOAD_TYPE
    pair.receive(message)  # none of these had used the challenge up


def test_evidence_that_is_refused_has_used_its_challenge_up(pair: Pair) -> None:
    answer = pair.answer(pair.request())
    assert refusal(pair, pair.sealed(answer, evidence={})) is Reason.ATTESTATION_INVALID
    assert refusal(pair, pair.sealed(answer)) is Reason.ATTESTATION_REQUIRED


def test_a_folder_that_the_coordinator_cannot_use_is_not_held_against_the_site(pair: Pair) -> None:
    message = pair.sealed(pair.answer(pair.request()))
    folder = pair.folder / "coordinator"
    folder.rename(pair.folder / "moved")
    folder.write_text("not a folder")
    with pytest.raises(ConfigurationError, match="cannot be stored"):
        pair.receive(message)


# --- how long it counts ---------------------------------------------------------------------------------------------


def test_a_site_is_asked_again_at_four_fifths_of_the_lifetime(pair_of: PairOf) -> None:
    for lifetime_s, due in ((600, 480), (100, 80)):
        pair = pair_of(appraiser=simulated_appraiser(lifetime_s=lifetime_s))
        held = pair.attest()
        pair.clock.now = NOW + due - 1
        assert pair.coordinator.attested(SITE, pair.job) is held
        pair.clock.now = NOW + due
        assert pair.coordinator.attested(SITE, pair.job) is None


def test_a_result_made_at_a_time_that_the_clock_has_not_reached_counts_for_nothing(pair: Pair) -> None:
    held = pair.attest()
    pair.clock.now = NOW - 60
    assert pair.coordinator.attested(SITE, pair.job) is held
    pair.clock.now = NOW - 61
    assert pair.coordinator.attested(SITE, pair.job) is None


def test_what_was_proved_for_one_job_counts_for_no_other(pair: Pair) -> None:
    pair.attest()
    other = pair.job.model_copy(update={"learning_rate": 0.25})
    assert pair.coordinator.attested(SITE, other) is None
    pair.coordinator.forget(SITE)
    assert pair.coordinator.attested(SITE, pair.job) is None


def test_no_model_is_encrypted_under_a_result_that_has_expired(pair: Pair) -> None:
    held: Attested = pair.attest()
    pair.clock.now = NOW + 600
    with pytest.raises(AttestationError, match="expired"):
        pair.coordinator.release(held, MODEL, b"envelope")


# --- updates --------------------------------------------------------------------------------------------------------


def test_an_update_is_revealed_to_the_coordinator_beside_its_own_envelope_alone(pair: Pair) -> None:
    attested = pair.attest()
    sent = pair.order(attested)
    concealed = pair.site.encrypt_update(sent.order, b"the statement", b"the update")
    assert b"the update" not in concealed
    assert pair.coordinator.decrypt_update(SealedMessage(b"the statement", concealed)) == b"the update"
    own = attested.identity.kem_key
    for arrays in (
        b"the update",
        pair.site.encrypt_update(sent.order, b"another statement", b"the update"),
        encrypt_to(own, b"the update", info_for("model", b"the statement")),
        encrypt_to(attested.report.kem_key, b"the update", info_for("update", b"the statement")),
    ):
        with pytest.raises(EnvelopeError) as refused:
            pair.coordinator.decrypt_update(SealedMessage(b"the statement", arrays))
        assert refused.value.reason is Reason.UNDECRYPTABLE


def test_a_coordinator_without_hardware_shows_no_evidence_and_a_fresh_key_with_every_start(pair_of: PairOf) -> None:
    pair = pair_of(coordinator_host=None)
    first = pair.attest().identity
    assert first.evidence is None
    pair.restart_coordinator()
    assert pair.attest().identity.kem_key != first.kem_key


def test_a_coordinator_proves_itself_over_each_sites_own_challenge(pair_of: PairOf) -> None:
    host = Host()
    pair = pair_of(coordinator_host=host)
    identities = [pair.attest().identity for _ in range(3)]
    assert len({identity.challenge for identity in identities}) == 3
    assert len(set(host.asked)) == 3
