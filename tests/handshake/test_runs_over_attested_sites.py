"""Whole rounds of real sites: who is sent a model, who is asked again and when, and what a failure costs whom."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord

from aegis.attacks.hostile.insider import Insider
from aegis.errors import RunPaused
from aegis.runtimes.in_process import initial_model
from coreason_enclave.attestation.challenges import CHALLENGE_S, FileChallenges
from coreason_enclave.crypto.encryption import KemKey, encrypt_to, info_for
from coreason_enclave.crypto.envelope import seal, unverified_payload
from coreason_enclave.errors import ConfigurationError, EnclaveError, Reason
from coreason_enclave.privacy.training import LocalSgdTrainer
from coreason_enclave.session.handshake import SiteHandshake
from coreason_enclave.wire.documents import ATTESTATION_TYPE, RoundOrder, SiteAttestation
from coreason_enclave.wire.handler import AnswersByMethod
from coreason_enclave.wire.updates import SealedMessage, encode_arrays
from tests.handshake.parties import Clock, Host, Tapped, at_sites, no_device, simulated_appraiser, with_handshake
from tests.support.studies import REHEARSALS, THREE, MakeStudy, PowerFailure, Study, a_job, where

SECOND = "clinic-2"


@pytest.fixture
def three(study: MakeStudy) -> Study:
    return study(3)


@pytest.fixture
def undisturbed(three: Study, tmp_path: Path) -> bytes:
    """The model of the same job over the same rows, with nothing in between; the sites are then as before."""
    shutil.copytree(three.federation.root, tmp_path / "other")
    sites = [replace(site, folder=tmp_path / "other" / site.config.site_id) for site in three.sites]
    return encode_arrays(Study(three.federation, tmp_path / "other-run", sites).run(a_job(three.federation)))


def lines(run: Study, action: str, outcome: str) -> list[dict[str, Any]]:
    return [line for line in run.audit() if (line["action"], line["outcome"]) == (action, outcome)]


class Answers(AnswersByMethod):
    """A site's own session; subclasses change one thing."""

    def __init__(self, site: Any) -> None:
        self.session = site.session

    def enrol(self, message: SealedMessage) -> SealedMessage:
        answer: SealedMessage = self.session.enrol(message)
        return answer

    def attest(self, message: SealedMessage) -> SealedMessage:
        answer: SealedMessage = self.session.attest(message)
        return answer

    def run(self, message: SealedMessage) -> SealedMessage:
        answer: SealedMessage = self.session.run(message)
        return answer


# --- no model before -------------------------------------------------------------------------------------------------


class RefusesToProve(Answers):
    def attest(self, message: SealedMessage) -> SealedMessage:
        raise EnclaveError("no", reason=Reason.POLICY)


class ShowsNothing(Answers):
    """Signs an attestation whose evidence is none."""

    def attest(self, message: SealedMessage) -> SealedMessage:
        genuine = SiteAttestation.from_payload(unverified_payload(self.session.attest(message).envelope))
        claimed = genuine.model_copy(update={"evidence": {"status": "trusted"}})
        return SealedMessage(seal(ATTESTATION_TYPE, claimed.canonical(), self.session.signer))


class AnswersWithAnUpdate(Answers):
    def attest(self, message: SealedMessage) -> SealedMessage:
        return SealedMessage(self.session.attest(message).envelope, b"arrays")


class NeverGetsIt(Answers):
    """Its attestation comes back as rubbish."""

    def attest(self, message: SealedMessage) -> SealedMessage:
        return SealedMessage(secrets.token_bytes(100))


@pytest.mark.parametrize("hostile", [RefusesToProve, ShowsNothing, AnswersWithAnUpdate, NeverGetsIt])
def test_a_site_that_did_not_prove_itself_is_sent_neither_model_nor_ciphertext_and_the_others_train(
    three: Study, hostile: Callable[[Any], Any]
) -> None:
    job, wire = a_job(three.federation, min_clients=2, rounds=1), Tapped()
    three.run(job, where([SECOND], hostile), grid=wire)
    assert wire.tap.to(2) == ["query.enrol", "query.attest"]
    assert wire.tap.to(1) == wire.tap.to(3) == ["query.enrol", "query.attest", "train"]
    model = encode_arrays(initial_model(job))
    assert all(model not in passed.bytes for passed in wire.tap.passed)
    assert all(not passed.message.arrays for passed in wire.tap.passed if passed.node == 2)
    assert three.history()[0].admitted == ("clinic-1", "clinic-3")
    assert three.reserved_rounds()[SECOND] == []


def test_a_site_whose_evidence_is_refused_is_quarantined_with_the_reason_and_its_own_refusal_is_its_right(
    study: MakeStudy, tmp_path: Path
) -> None:
    run = study(3)
    run.run(a_job(run.federation, min_clients=2, rounds=1), where([SECOND], ShowsNothing))
    assert run.state().quarantine[SECOND].reason == "attestation_invalid"
    (refused,) = [line for line in lines(run, "admit", "refused") if line["details"]["site"] == SECOND]
    assert refused["reason"] == "attestation_invalid"
    assert "not evidence" in refused["details"]["message"]

    lenient = replace(run, folder=tmp_path / "lenient")
    lenient.run(a_job(run.federation, job_id="study-2", min_clients=2, rounds=1), where([SECOND], RefusesToProve))
    assert lenient.state().quarantine == {}
    assert lenient.history()[0].refused == {SECOND: "policy"}


def test_the_audit_log_names_what_each_site_proved_and_how_long_it_counts(three: Study) -> None:
    before = int(time.time())
    three.run(a_job(three.federation, rounds=1))
    proved = lines(three, "attest", "accepted")
    assert sorted(line["details"]["site"] for line in proved) == list(THREE)
    for line in proved:
        told = line["details"]
        assert (told["provenance"], told["kind"], told["measurement"]) == ("simulated", "simulated", None)
        assert told["not_checked"] == ["everything: this evidence is simulated"]
        assert before < told["expires_at"] <= time.time() + 600
        assert len(told["kem_key"]) == len(told["nonce"]) == len(told["result"]) == 64
    assert len({line["details"]["nonce"] for line in proved}) == 3


def test_an_order_follows_as_soon_as_its_site_proved_itself_and_waits_for_nobody(three: Study) -> None:
    others_train = Event()

    class Slow(Answers):
        def attest(self, message: SealedMessage) -> SealedMessage:
            assert others_train.wait(30), "the others were not ordered to train meanwhile"
            return super().attest(message)

    class Tells(Answers):
        def run(self, message: SealedMessage) -> SealedMessage:
            others_train.set()
            return super().run(message)

    three.run(
        a_job(three.federation, rounds=1),
        lambda site: where([SECOND], Slow)(site) if site.config.site_id == SECOND else where(THREE, Tells)(site),
    )
    assert len(three.history()[0].admitted) == 3


# --- a site that was restarted --------------------------------------------------------------------------------------


class RestartedBeforeItsOrder(Answers):
    """Loses its memory between its attestation and its first order."""

    restarted = False

    def run(self, message: SealedMessage) -> SealedMessage:
        if not self.restarted:
            self.restarted = True
            self.session = anew(self.session)
        return super().run(message)


class RestartedWithItsAnswer(Answers):
    """Trains, and loses its memory and its answer; asked again, it proves itself anew."""

    lost = False

    def run(self, message: SealedMessage) -> SealedMessage:
        answer = super().run(message)
        if not self.lost:
            self.lost = True
            self.session = anew(self.session)
            return super().run(message)
        return answer


def anew(session: Any) -> Any:
    """The same site as another process."""
    old = session.handshake
    fresh = SiteHandshake(old.site_id, old.signer, old.attester, old.appraiser, old.challenges, old.clock)
    return replace(session, handshake=fresh)


@pytest.mark.parametrize("restarted", [RestartedBeforeItsOrder, RestartedWithItsAnswer])
def test_a_site_that_was_restarted_in_mid_round_proves_itself_again_in_that_round_and_no_bit_is_lost(
    three: Study, undisturbed: bytes, restarted: Callable[[Any], Any]
) -> None:
    wire = Tapped()
    model = three.run(a_job(three.federation), where([SECOND], restarted), grid=wire)
    assert encode_arrays(model) == undisturbed
    assert wire.tap.to(2) == ["query.enrol", "query.attest", "train", "query.attest", "train", "train"]
    assert [len(record.admitted) for record in three.history()] == [3, 3]
    assert three.reserved_rounds() == {name: [1, 2] for name in THREE}
    assert [line["details"]["attempt"] for line in lines(three, "round", "opened")] == [1, 1]
    assert three.state().quarantine == {}


def test_a_site_that_is_restarted_before_every_order_is_asked_a_few_times_and_then_left_out(three: Study) -> None:
    class Forgetful(Answers):
        def run(self, message: SealedMessage) -> SealedMessage:
            self.session = anew(self.session)
            return super().run(message)

    wire = Tapped()
    three.run(a_job(three.federation, min_clients=2, rounds=1), where([SECOND], Forgetful), grid=wire)
    assert three.history()[0].refused == {SECOND: "attestation_required"}
    assert wire.tap.to(2).count("query.attest") == 8
    assert three.reserved_rounds()[SECOND] == []


def test_where_rounds_are_driven_by_hand_such_a_site_is_named_and_attests_before_the_round_is_asked_again(
    three: Study,
) -> None:
    job = a_job(three.federation, rounds=1)
    arrays = ArrayRecord({name: FlowerArray(value) for name, value in initial_model(job).items()})
    with (
        three.opened(where([SECOND], RestartedBeforeItsOrder)) as opened,
        three.coordinator(job, opened) as strategy,
    ):
        replies = opened.grid.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord(), opened.grid))
        assert strategy.aggregate_train(1, replies) == (None, None)
        (repeated,) = lines(three, "round", "repeat")
        assert "clinic-2: attestation_required" in repeated["details"]["why"]
        again = opened.grid.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord(), opened.grid))
        assert strategy.aggregate_train(1, again)[0] is not None
    assert three.history()[0].admitted == THREE
    assert three.state().quarantine == {}


# --- secrets --------------------------------------------------------------------------------------------------------


def test_no_key_to_decrypt_with_is_ever_written_down_or_logged(
    three: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[X25519PrivateKey] = []

    def noted(key: KemKey, private: X25519PrivateKey) -> None:
        made.append(private)
        honest(key, private)

    honest = KemKey.__init__
    monkeypatch.setattr(KemKey, "__init__", noted)
    caplog.set_level(logging.DEBUG)
    three.run(a_job(three.federation))
    assert len(made) == 4  # each site's, and the coordinator's
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(b"kem_key" in content for content in written.values())
    for key in made:
        raw = key.private_bytes_raw()
        for secret in (raw, raw.hex().encode(), raw[:16], raw.hex()[:32].encode()):
            assert [path for path, content in written.items() if secret in content] == []
            assert secret.decode("latin-1") not in caplog.text


# --- while it trains ------------------------------------------------------------------------------------------------


class Long(LocalSgdTrainer):
    """Training in which a hundred seconds pass before each step; its rehearsals take no time, and are counted apart."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.rehearsed, self.steps = clock, list[int](), list[int]()

    def train(self, task: Any) -> Any:
        def aborted() -> bool:
            if rehearsing(task):
                self.rehearsed.append(task.scope.gate.steps_taken)
            else:
                self.clock.now += 100
                self.steps.append(task.scope.gate.steps_taken)
            answer: bool = task.aborted()
            return answer

        return super().train(replace(task, aborted=aborted))


def rehearsing(task: Any) -> bool:
    return not task.scope.rehearsal.complete


def test_a_long_training_is_proved_again_in_the_middle_and_goes_on(three: Study) -> None:
    clock, host = Clock(time.time()), Host()
    trainer = Long(clock)

    def change(site: Any) -> Any:
        if site.config.site_id != SECOND:
            return site.session
        return replace(with_handshake(site.session, attester=host, clock=clock), trainer=trainer)

    three.run(a_job(three.federation, rounds=1, local_steps=8), at_sites(change))
    assert trainer.rehearsed == [0] * REHEARSALS  # each to its first step, which charges nothing
    assert trainer.steps == list(range(8))
    assert len(host.asked) == len(set(host.asked)) == 3  # to the coordinator, after 480 s, with the update
    assert three.history()[0].admitted == THREE


def test_a_host_that_fails_while_it_trains_stops_before_the_next_step_is_charged_and_sits_out(three: Study) -> None:
    clock, host, handshakes = Clock(time.time()), Host(), list[Any]()

    class Breaks(Long):
        def train(self, task: Any) -> Any:
            if not rehearsing(task):
                host.fault = no_device()
            return super().train(task)

    trainer = Breaks(clock)

    def change(site: Any) -> Any:
        if site.config.site_id != SECOND:
            return site.session
        session = replace(with_handshake(site.session, attester=host, clock=clock), trainer=trainer)
        handshakes.append(session.handshake)
        return session

    three.run(a_job(three.federation, min_clients=2, rounds=1, local_steps=8), at_sites(change))
    assert trainer.rehearsed == [0] * REHEARSALS
    assert trainer.steps == [0, 1, 2, 3, 4]  # 500 s after it was appraised, before the fifth step
    assert handshakes[0].kem_keys._keys == {}
    assert three.history()[0].admitted == ("clinic-1", "clinic-3")
    assert three.history()[0].refused == {SECOND: "attestation_unavailable"}
    assert three.state().quarantine[SECOND].reason == "attestation_unavailable"
    entries = {site.config.site_id: [entry["type"] for entry in site.ledger_entries()] for site in three.sites}
    assert entries[SECOND].count("reserved") == 1
    assert "committed" not in entries[SECOND]  # what was reserved stays spent: nothing is refunded
    assert "committed" in entries["clinic-1"]
    (logged,) = [line for line in three.sites[1].log() if line["outcome"] == "refused"]
    assert logged["reason"] == "attestation_unavailable"


class Swallows(Long):
    """A loop that takes a failure for a hiccup, and trains on."""

    def train(self, task: Any) -> Any:
        def aborted() -> bool:
            try:
                answer: bool = task.aborted()
            except EnclaveError:
                self.host.fault = None
                return False
            return answer

        if not rehearsing(task):
            self.host.fault = no_device()
        return super().train(replace(task, aborted=aborted))

    def __init__(self, clock: Clock, host: Host) -> None:
        super().__init__(clock)
        self.host = host


class NeverAsks(Long):
    """A loop that asks nobody whether it may go on."""

    def __init__(self, clock: Clock, host: Host) -> None:
        super().__init__(clock)
        self.host = host

    def train(self, task: Any) -> Any:
        if not rehearsing(task):
            self.host.fault = no_device()
        trained = LocalSgdTrainer.train(self, replace(task, aborted=lambda: False))
        self.clock.now += 481
        return trained


@pytest.mark.parametrize("loop", [Swallows, NeverAsks])
def test_a_loop_that_trains_on_regardless_releases_nothing_of_it(
    three: Study, loop: Callable[[Clock, Host], LocalSgdTrainer]
) -> None:
    clock, host = Clock(time.time()), Host()

    def change(site: Any) -> Any:
        if site.config.site_id != SECOND:
            return site.session
        return replace(with_handshake(site.session, attester=host, clock=clock), trainer=loop(clock, host))

    three.run(a_job(three.federation, min_clients=2, rounds=1, local_steps=8), at_sites(change))
    assert three.history()[0].refused == {SECOND: "attestation_unavailable"}
    assert "committed" not in [entry["type"] for entry in three.sites[1].ledger_entries()]


def test_what_a_site_proved_before_its_host_failed_counts_no_more(three: Study) -> None:
    """It comes back after the rounds that it sat out: it is asked first, though its result would still count."""
    host, wire = Host(), Tapped()

    class Fails(Answers):
        def run(self, message: SealedMessage) -> SealedMessage:
            if host.fault is None and len(host.asked) == 1:
                raise no_device()
            return super().run(message)

    def adapt(site: Any) -> Any:
        if site.config.site_id == SECOND:
            site = replace(site, session=with_handshake(site.session, attester=host))
        return where([SECOND], Fails)(site)

    three.run(a_job(three.federation, min_clients=2, rounds=4), adapt, grid=wire)
    assert [SECOND in record.admitted for record in three.history()] == [False, False, True, True]
    assert wire.tap.to(2) == ["query.enrol", *["query.attest", "train"] * 2, "train"]


# --- the coordinator's clock ----------------------------------------------------------------------------------------


def test_sites_are_asked_again_between_rounds_at_four_fifths_of_the_lifetime(three: Study) -> None:
    clock, wire, asked = Clock(time.time()), Tapped(), list[int]()

    def observe(record: Any) -> None:
        asked.append(wire.tap.count("query.attest"))
        clock.now += 160

    three.run(
        a_job(three.federation, rounds=5, local_steps=1),
        at_sites(lambda site: with_handshake(site.session, clock=clock)),
        clock=clock,
        observe=observe,
        grid=wire,
    )
    assert asked == [3, 3, 3, 6, 6]  # rounds at 0, 160, 320, 480 and 640 s
    assert [len(record.admitted) for record in three.history()] == [3] * 5


def test_a_shorter_lifetime_of_the_policy_is_kept(three: Study) -> None:
    clock, wire, asked = Clock(time.time()), Tapped(), list[int]()

    def observe(record: Any) -> None:
        asked.append(wire.tap.count("query.attest"))
        clock.now += 25

    three.run(
        a_job(three.federation, rounds=3, local_steps=1),
        at_sites(lambda site: with_handshake(site.session, clock=clock)),
        appraiser=simulated_appraiser(lifetime_s=60),
        clock=clock,
        observe=observe,
        grid=wire,
    )
    assert asked == [3, 3, 6]


def test_a_site_that_sleeps_through_its_challenge_is_asked_anew_and_then_trains(three: Study) -> None:
    clock, wire = Clock(time.time()), Tapped()

    class Sleeps(Answers):
        slept = False

        def attest(self, message: SealedMessage) -> SealedMessage:
            answer = super().attest(message)
            if not self.slept:
                self.slept = True
                clock.now += CHALLENGE_S + 1
            return answer

    def adapt(site: Any) -> Any:
        site = replace(site, session=with_handshake(site.session, clock=clock))
        return where([SECOND], Sleeps)(site)

    three.run(a_job(three.federation, rounds=1), adapt, clock=clock, grid=wire)
    assert wire.tap.to(2) == ["query.enrol", "query.attest", "query.attest", "train"]
    assert three.history()[0].admitted == THREE
    assert three.state().quarantine == {}
    assert len(lines(three, "round", "opened")) == 1
    assert lines(three, "admit", "refused") == []


def test_a_coordinator_that_was_killed_between_two_rounds_attests_with_everybody_again_and_goes_on(
    three: Study, undisturbed: bytes
) -> None:
    def die(record: Any) -> None:
        raise PowerFailure

    job, before, after = a_job(three.federation), Tapped(), Tapped()
    with pytest.raises(PowerFailure):
        three.run(job, observe=die, grid=before)
    model = three.run(job, grid=after)
    assert encode_arrays(model) == undisturbed
    assert [wire.tap.count("query.attest") for wire in (before, after)] == [3, 3]
    attested = [line["details"]["kem_key"] for line in lines(three, "attest", "accepted")]
    assert len(set(attested)) == 6
    kinds = [passed.kind for passed in after.tap.passed if passed.node == 1]
    assert kinds == ["query.attest", "train"]


# --- updates that were moved ----------------------------------------------------------------------------------------


class ToAnotherKey(Answers):
    """Its host sends the update to a key of its own."""

    def run(self, message: SealedMessage) -> SealedMessage:
        honest, update = Insider(self.session).revealed(message)
        key = KemKey.generate().public_hex
        return SealedMessage(
            honest.envelope, encrypt_to(key, encode_arrays(update), info_for("update", honest.envelope))
        )


class BesideAnotherEnvelope(Answers):
    """The carrier puts the ciphertext of one answer beside the envelope of another."""

    def run(self, message: SealedMessage) -> SealedMessage:
        honest, update = Insider(self.session).revealed(message)
        order = RoundOrder.from_payload(unverified_payload(message.envelope))
        other = self.session.handshake.encrypt_update(order, b"another answer's envelope", encode_arrays(update))
        return SealedMessage(honest.envelope, other)


class InTheOpen(Answers):
    """Sends its update as it is."""

    def run(self, message: SealedMessage) -> SealedMessage:
        honest, update = Insider(self.session).revealed(message)
        return SealedMessage(honest.envelope, encode_arrays(update))


@pytest.mark.parametrize("moved", [ToAnotherKey, BesideAnotherEnvelope, InTheOpen])
def test_an_update_that_is_not_encrypted_to_the_coordinator_for_this_answer_is_refused(
    three: Study, moved: Callable[[Any], Any]
) -> None:
    three.run(a_job(three.federation, min_clients=2, rounds=1), where([SECOND], moved))
    assert three.history()[0].refused == {SECOND: "undecryptable"}
    assert three.state().quarantine[SECOND].reason == "undecryptable"


def test_no_update_crosses_the_wire_in_the_open(three: Study) -> None:
    sent, seen = list[bytes](), list[bytes]()

    class Listened(Answers):
        def run(self, message: SealedMessage) -> SealedMessage:
            honest, update = Insider(self.session).revealed(message)
            sent.append(honest.arrays)
            seen.append(encode_arrays(update))
            return honest

    three.run(a_job(three.federation, rounds=1), where(THREE, Listened))
    assert len(sent) == 3
    for update in seen:
        values = update[-16:]  # float32 weights stand at the end
        assert all(values not in ciphertext for ciphertext in sent)


# --- one hostile site does not stop the others ----------------------------------------------------------------------


def test_a_site_with_a_key_that_nothing_can_be_encrypted_to_does_not_end_the_run(three: Study) -> None:
    class SmallOrder(Answers):
        def attest(self, message: SealedMessage) -> SealedMessage:
            session, handshake = self.session, self.session.handshake
            genuine = SiteAttestation.from_payload(unverified_payload(session.attest(message).envelope))
            key = "00" * 32
            evidence = handshake._prove(genuine.nonce, key, genuine.job_digest).model_dump(mode="json")
            forged = genuine.model_copy(update={"kem_key": key, "evidence": evidence})
            return SealedMessage(seal(ATTESTATION_TYPE, forged.canonical(), session.signer))

    three.run(a_job(three.federation, min_clients=2, rounds=1), where([SECOND], SmallOrder))
    assert three.history()[0].refused == {SECOND: "malformed"}
    assert three.state().quarantine[SECOND].reason == "malformed"


def test_too_few_sites_that_can_prove_themselves_pause_the_run_and_it_goes_on_once_they_can(
    three: Study, undisturbed: bytes
) -> None:
    hosts = {name: Host(fault=no_device()) for name in THREE[:2]}

    def change(site: Any) -> Any:
        host = hosts.get(site.config.site_id)
        return site.session if host is None else with_handshake(site.session, attester=host)

    job, wire = a_job(three.federation), Tapped()
    with pytest.raises(RunPaused, match="attestation_unavailable"):
        three.run(job, at_sites(change), grid=wire)
    assert wire.tap.to(1).count("train") == wire.tap.to(2).count("train") == 0
    for host in hosts.values():
        host.fault = None
    model = three.run(job, at_sites(change), readmitted=list(hosts))
    assert encode_arrays(model) == undisturbed


def test_a_coordinator_that_cannot_keep_challenges_says_so_and_asks_nobody(three: Study, tmp_path: Path) -> None:
    (tmp_path / "no-folder").write_text("")
    wire = Tapped()
    with pytest.raises(ConfigurationError, match="challenges cannot be stored"):
        three.run(a_job(three.federation), challenges=FileChallenges(tmp_path / "no-folder"), grid=wire)
    assert wire.tap.count("query.attest") == wire.tap.count("train") == 0
    assert three.state().quarantine == {}


def test_no_two_sites_are_sent_the_same_bytes(three: Study) -> None:
    wire = Tapped()
    three.run(a_job(three.federation), grid=wire)
    ciphertexts = [passed.message.arrays for passed in wire.tap.passed if passed.kind == "train"]
    assert len(set(ciphertexts)) == len(ciphertexts) == 6
    for one, other in pairwise(ciphertexts):
        assert one[:32] != other[:32]


def test_an_attester_that_breaks_in_an_unforeseen_way_is_a_site_that_cannot_prove_itself(three: Study) -> None:
    host = Host(fault=OSError(5, "Input/output error"))

    def change(site: Any) -> Any:
        return with_handshake(site.session, attester=host) if site.config.site_id == SECOND else site.session

    three.run(a_job(three.federation, min_clients=2, rounds=1), at_sites(change))
    assert three.history()[0].refused == {SECOND: "attestation_unavailable"}
    assert "Input/output error" not in str(three.audit())  # the details stay at the site
    assert "Input/output error" in str(three.sites[1].log())


def test_what_a_site_asks_of_a_device_in_a_round_is_twice_its_evidence(three: Study) -> None:
    host = Host()

    def change(site: Any) -> Any:
        return with_handshake(site.session, attester=host) if site.config.site_id == SECOND else site.session

    three.run(a_job(three.federation, rounds=3, local_steps=1), at_sites(change))
    assert len(host.asked) == len(set(host.asked)) == 4  # once to be let in, then with each update
