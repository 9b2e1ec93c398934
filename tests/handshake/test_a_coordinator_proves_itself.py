"""The other direction: a site whose policy asks a coordinator for evidence, and the coordinators that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aegis.errors import RunPaused
from coreason_enclave.attestation.binding import Binding, Role
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.crypto.encryption import KemKey
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import AttestationError, EnclaveError, Reason
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.policy import Profile, SiteConfig
from coreason_enclave.wire.documents import COORDINATOR, CoordinatorIdentity
from tests.conftest import site_config
from tests.coreason_enclave.attestation.appraisal import hosts
from tests.handshake.parties import MODEL, NOW, SITE, Host, Order, Pair, Tapped, no_device, simulated_appraiser

PairOf = Callable[..., Pair]


@pytest.fixture
def asking(pair_of: PairOf) -> Pair:
    """A pair whose site wants to see simulated evidence."""
    return pair_of(asks=simulated_appraiser())


def refused(pair: Pair, sent: Order) -> Reason:
    with pytest.raises(EnclaveError) as caught:
        pair.open(sent)
    return caught.value.reason


def evidence_over(pair: Pair, **changes: Any) -> dict[str, Any]:
    """What the coordinator's host would show over this binding."""
    binding = Binding(
        **{
            "role": Role.COORDINATOR,
            "nonce": "ab" * 32,
            "public_key": pair.signer.public_hex,
            "kem_key": "cd" * 32,
            "subject": COORDINATOR,
            "job_digest": pair.job.digest(),
            **changes,
        }
    )
    return SimulatedAttester().produce(binding.context()).model_dump(mode="json")


def test_a_coordinator_that_proves_itself_is_trained_for(asking: Pair) -> None:
    attested = asking.attest()
    assert asking.open(asking.order(attested)).model == MODEL
    assert asking.open(asking.order(attested, nonce="cd" * 32)).model == MODEL  # the next round's order, without asking


def test_a_coordinator_without_evidence_is_refused_where_the_policy_asks_and_taken_where_it_does_not(
    pair_of: PairOf,
) -> None:
    strict = pair_of(asks=simulated_appraiser(), coordinator_host=None)
    assert refused(strict, strict.order(strict.attest())) is Reason.ATTESTATION_UNACCEPTABLE
    lenient = pair_of(coordinator_host=None)
    assert lenient.open(lenient.order(lenient.attest())).model == MODEL


def test_evidence_over_an_earlier_challenge_is_refused(asking: Pair) -> None:
    first, second = asking.attest(), asking.attest()
    asking.open(asking.order(first))
    replayed = second.identity.model_copy(update={"evidence": first.identity.evidence})
    assert refused(asking, asking.order(second, coordinator=replayed)) is Reason.ATTESTATION_INVALID


def test_a_challenge_answers_for_one_appraisal(asking: Pair) -> None:
    first, second = asking.attest(), asking.attest()
    asking.open(asking.order(first))
    asking.open(asking.order(second))
    assert refused(asking, asking.order(first)) is Reason.ATTESTATION_REQUIRED


def test_a_challenge_that_was_never_set_counts_for_nothing(asking: Pair) -> None:
    attested = asking.attest()
    invented = CoordinatorIdentity(
        kem_key=attested.identity.kem_key,
        challenge="ab" * 32,
        evidence=evidence_over(asking, kem_key=attested.identity.kem_key),
    )
    assert refused(asking, asking.order(attested, coordinator=invented)) is Reason.ATTESTATION_REQUIRED


def test_a_challenge_that_is_too_old_has_to_be_set_anew(asking: Pair) -> None:
    attested = asking.attest()
    asking.clock.now = NOW + 121
    assert refused(asking, asking.order(attested)) is Reason.ATTESTATION_REQUIRED
    assert asking.open(asking.order(asking.attest())).model == MODEL


MOVED = {
    "a key to encrypt to that is not its own": {"kem_key": "ab" * 32},
    "another signing key": {"public_key": Signer.from_seed(bytes(32)).public_hex},
    "another job": {"job_digest": "ab" * 32},
    "another name": {"subject": SITE},
    "the site's own role": {"role": Role.SITE},
}


@pytest.mark.parametrize("changes", MOVED.values(), ids=list(MOVED))
def test_evidence_that_is_bound_to_something_else_is_refused(asking: Pair, changes: dict[str, Any]) -> None:
    attested = asking.attest()
    own = {"nonce": attested.identity.challenge, "kem_key": attested.identity.kem_key}
    wrong = attested.identity.model_copy(update={"evidence": evidence_over(asking, **{**own, **changes})})
    assert refused(asking, asking.order(attested, coordinator=wrong)) is Reason.ATTESTATION_INVALID
    again = asking.attest()
    own = {"nonce": again.identity.challenge, "kem_key": again.identity.kem_key}
    right = again.identity.model_copy(update={"evidence": evidence_over(asking, **own)})
    assert asking.open(asking.order(again, coordinator=right)).model == MODEL  # nothing but that was wrong with it


def test_a_key_swapped_in_after_the_coordinator_was_accepted_is_noticed(asking: Pair) -> None:
    """The order is signed by the right key, its evidence is genuine: but updates would go to somebody else's key."""
    attested = asking.attest()
    asking.open(asking.order(attested))
    swapped = attested.identity.model_copy(update={"kem_key": KemKey.generate().public_hex})
    assert refused(asking, asking.order(attested, coordinator=swapped)) is Reason.ATTESTATION_REQUIRED


def test_evidence_of_another_kind_is_refused_and_what_is_none_as_well(asking: Pair) -> None:
    attested = asking.attest()
    snp = hosts.Host(CpuKind.SNP).produce(b"").model_dump(mode="json")
    other = attested.identity.model_copy(update={"evidence": snp})
    assert refused(asking, asking.order(attested, coordinator=other)) is Reason.ATTESTATION_UNACCEPTABLE
    attested = asking.attest()
    nothing = attested.identity.model_copy(update={"evidence": {"trusted": True}})
    assert refused(asking, asking.order(attested, coordinator=nothing)) is Reason.ATTESTATION_INVALID


def test_a_production_site_takes_no_simulated_coordinator_whatever_kinds_it_lists(pair_of: PairOf) -> None:
    pair = pair_of(asks=replace(simulated_appraiser(), profile=Profile.PRODUCTION))
    assert refused(pair, pair.order(pair.attest())) is Reason.ATTESTATION_UNACCEPTABLE


def test_a_coordinator_is_appraised_again_when_its_time_is_over_though_the_sites_own_is_not(pair_of: PairOf) -> None:
    pair = pair_of(asks=simulated_appraiser(lifetime_s=30))
    attested = pair.attest()
    pair.clock.now = NOW + 30
    pair.open(pair.order(attested))
    pair.clock.now = NOW + 61
    assert refused(pair, pair.order(attested)) is Reason.ATTESTATION_REQUIRED
    assert pair.open(pair.order(pair.attest())).model == MODEL


def test_two_coordinators_cannot_use_each_others_challenges(pair_of: PairOf) -> None:
    """Both are in the site's policy; one relays what it was told to the other."""
    pair = pair_of(asks=simulated_appraiser())
    other = Signer.generate()
    challenge = pair.site.answer(pair.request(), other.public_hex).challenge
    attested = pair.attest()
    kem_key = attested.identity.kem_key
    relayed = CoordinatorIdentity(
        kem_key=kem_key, challenge=challenge, evidence=evidence_over(pair, nonce=challenge, kem_key=kem_key)
    )
    assert refused(pair, pair.order(attested, coordinator=relayed)) is Reason.ATTESTATION_REQUIRED


def test_a_site_that_lost_its_own_proof_forgets_its_coordinators(asking: Pair) -> None:
    attested = asking.attest()
    asking.open(asking.order(attested))
    asking.host.fault = RuntimeError("gone")
    with pytest.raises(AttestationError):
        asking.answer(asking.request())
    asking.host.fault = None
    again = asking.order(asking.attest(), coordinator=attested.identity)
    assert refused(asking, again) is Reason.ATTESTATION_REQUIRED


# --- whole runs -----------------------------------------------------------------------------------------------------

ASKS = {"policy": {"coordinator_attestation": {"kinds": ["simulated"]}}}


def test_a_run_of_sites_that_ask_the_coordinator_as_well(study: Any) -> None:
    run = study(3, **ASKS)
    run.run(run.federation.job(min_clients=3, rounds=2, local_steps=2))
    assert [len(record.admitted) for record in run.history()] == [3, 3]


def test_a_site_that_asks_for_evidence_sits_out_where_a_coordinator_has_none_and_that_is_its_right(study: Any) -> None:
    run = study(2)
    run.sites.append(run.federation.create("clinic-3", rows=3, **ASKS))
    run.run(run.federation.job(min_clients=2, rounds=1, local_steps=2), attester=None)
    assert run.history()[0].refused == {"clinic-3": "attestation_unacceptable"}
    assert run.state().quarantine == {}
    assert run.reserved_rounds() == {"clinic-1": [1], "clinic-2": [1], "clinic-3": []}


def test_a_coordinator_whose_own_device_is_gone_sends_no_model_and_blames_no_site(study: Any) -> None:
    run, wire = study(3), Tapped()
    with pytest.raises(RunPaused, match="attestation_unavailable"):
        run.run(run.federation.job(min_clients=3, rounds=1), attester=Host(fault=no_device()), grid=wire)
    assert wire.tap.count("train") == 0
    assert run.state().quarantine == {}
    assert "this host cannot attest" in str(run.audit())


# --- what production has to say -------------------------------------------------------------------------------------


def production(**policy: Any) -> SiteConfig:
    return site_config("clinic-1", "ab" * 32, profile="production", attester="snp", policy=policy)


def test_a_production_site_says_what_it_asks_of_coordinators_or_that_it_asks_nothing() -> None:
    with pytest.raises(ValueError, match="needs coordinator_attestation"):
        production()
    with pytest.raises(ValueError, match="contradict"):
        production(coordinator_attestation={"kinds": ["snp"]}, unsafe_unattested_coordinator=True)
    assert production(unsafe_unattested_coordinator=True).policy.coordinator_attestation is None
    assert production(coordinator_attestation={"kinds": ["snp"]}).policy.coordinator_attestation is not None


def test_what_it_asks_of_coordinators_is_there_when_it_is_opened(federation: Any, monkeypatch: Any) -> None:
    from coreason_enclave.site import opening as site_rooms
    from coreason_enclave.site.opening import open_site

    monkeypatch.setattr(site_rooms, "attester_named", lambda name: hosts.Host(CpuKind.SNP))
    strict = federation.create(
        "clinic-1", profile="production", attester="snp", policy={"coordinator_attestation": {"kinds": ["tdx"]}}
    )
    opened = open_site(strict.folder)
    try:
        appraiser = opened.session.handshake.appraiser
        assert appraiser is not None
        assert (appraiser.profile, appraiser.policy.kinds) == (Profile.PRODUCTION, (CpuKind.TDX,))
    finally:
        opened.close()
