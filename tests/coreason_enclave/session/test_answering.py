"""One order, one sealed update: what it says, that it is right, and that asking again changes nothing."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import json
import math
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from coreason_enclave.accounting import compose_epsilon
from coreason_enclave.accounting.events import PoissonSampledGaussian, event_from_dict
from coreason_enclave.attestation.binding import Binding, Role, report_data
from coreason_enclave.crypto.encoding import digest, sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.crypto.hash_log import verify_lines
from coreason_enclave.crypto.keystream import Keystream, Purpose
from coreason_enclave.errors import EnclaveError, LedgerConflict, Reason
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.updates import SealedMessage, decode_arrays, encode_arrays

Site = Any
Federation = Any
Floats = npt.NDArray[np.float64]


def statement_of(site: Site, answer: SealedMessage) -> UpdateStatement:
    keys = KeyRing({site.config.site_id: site.public_key})
    return UpdateStatement.from_payload(open_envelope(answer.envelope, UPDATE_TYPE, keys).payload)


def arrays_of(answer: SealedMessage) -> dict[str, Any]:
    return decode_arrays(answer.arrays, limit=1 << 20)


def spent(site: Site) -> int:
    opened = site.open()
    try:
        return int(opened.ledger.lineage_claim(site.lineage).spent_pico)
    finally:
        opened.close()


def kinds(site: Site) -> list[str]:
    return [entry["type"] for entry in site.ledger_entries()]


def ask(site: Site, order: SealedMessage, **options: Any) -> SealedMessage:
    """Open the site, answer one order, close it."""
    opened = site.open(**options)
    try:
        answer: SealedMessage = opened.session.run(order)
        return answer
    finally:
        opened.close()


def test_the_statement_says_what_ran_for_which_order_and_is_signed_by_the_site(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    order = federation.order(job, nonce="cd" * 32, round_number=2)
    answer = ask(site, order, clock=federation.clock)
    said = statement_of(site, answer)
    expected = {
        "version": 1,
        "site_id": "clinic-1",
        "job_id": "study-1",
        "job_digest": job.digest(),
        "round_number": 2,
        "nonce": "cd" * 32,
        "base_model_digest": sha256_hex(order.arrays),
        "update_digest": sha256_hex(answer.arrays),
        "noise_source": "site_keystream",
        "unit": "person",
        "delta": 1e-5,
        "nominal_units": 24,
        "metrics": {},
    }
    assert {name: value for name, value in said.model_dump().items() if name in expected} == expected
    event = event_from_dict(said.event)
    assert event == PoissonSampledGaussian(2.0, 0.5, 4)
    assert said.epsilon == compose_epsilon([event], 1e-5).epsilon


def test_the_evidence_is_bound_to_nonce_keys_site_and_job(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    said = statement_of(site, ask(site, federation.order(job, nonce="cd" * 32), clock=federation.clock))
    report = json.loads(base64.b64decode(said.evidence["cpu"]["report"]))
    binding = Binding(Role.SITE, "cd" * 32, site.public_key, said.kem_key, "clinic-1", job.digest())
    assert report == {"simulated": True, "report_data": report_data(binding.context(), ()).hex()}


def test_ledger_and_log_hold_one_round_reserved_before_the_data_and_committed_before_the_seal(
    federation: Federation,
) -> None:
    site, job = federation.create(), federation.job()
    answer = ask(site, federation.order(job), clock=federation.clock)
    entries = site.ledger_entries()
    assert kinds(site) == ["founded", "registered", "reserved", "content_noted", "committed"]
    assert (entries[2]["step_limit"], entries[2]["plan"]["total_steps"]) == (4, 20)
    assert entries[-1]["update_digest"] == sha256_hex(answer.arrays)
    assert statement_of(site, answer).ledger_head.seq == len(entries) - 1
    assert [(line["action"], line["outcome"]) for line in site.log()] == [("reserve", "granted"), ("round", "sealed")]
    assert {line["details"]["profile"] for line in site.log()} == {"development"}
    assert {line["details"]["attestation"] for line in site.log()} == {"simulated"}
    assert {line["time"] for line in site.log()} == {federation.now}
    verify_lines((site.folder / "audit.jsonl").read_bytes())


# --- the whole round once more, in plain NumPy ------------------------------------------------------------------


class Reference:
    """A round recomputed from the site's files and its injected seed; only the keystream's words are borrowed."""

    def __init__(self, site: Site, job: Any, base: dict[str, Any], seed: int, round_number: int) -> None:
        self.job, self.base = job, base
        where = site.folder / "data" / job.dataset_id
        toml, rows = (where / "dataset.toml").read_bytes(), (where / "rows.csv").read_bytes()
        self._read(rows)
        self.stream = Keystream(
            hmac.digest(bytes([seed]) * 32, bytes.fromhex(job.digest()), hashlib.sha256),
            job_digest=job.digest(),
            round_number=round_number,
            base_model_digest=sha256_hex(encode_arrays(base)),
            dataset_digest=digest("aegis.dataset.v1", toml, rows).hex(),
        )
        self.sampled: list[int] = []

    def _read(self, data: bytes) -> None:
        rows = list(csv.DictReader(data.decode().splitlines()))
        names = [name for name in rows[0] if name not in ("patient", "visited")]
        scaled = np.array([[float(row[name]) / 5.0 - 1.0 for name in names] for row in rows])
        self.x = np.hstack([scaled, np.ones((len(rows), 1))])
        self.y = np.array([float(row["visited"]) for row in rows])
        if self.job.privacy.unit == "person":
            patients = [row["patient"] for row in rows]
            unit_of = {name: number for number, name in enumerate(sorted(set(patients)))}
            self.unit = np.array([unit_of[patient] for patient in patients])
        else:
            self.unit = np.arange(len(rows))

    def _gaussian(self, count: int, step: int, tensor: str) -> Floats:
        pairs = (count + 1) // 2
        words = self.stream.words(2 * pairs, Purpose.NOISE, step, tensor).astype(np.float64)
        radius = np.sqrt(-2 * np.log((words[:pairs] + 1) / 2.0**64))
        angle = 2 * math.pi * words[pairs:] / 2.0**64
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def _sum_of_clipped(self, weights: Floats, step: int) -> Floats:
        privacy = self.job.privacy
        words = self.stream.words(int(self.unit.max()) + 1, Purpose.SAMPLING, step)
        included = [unit for unit, word in enumerate(words) if int(word) < int(privacy.sample_rate * 2**64)]
        self.sampled.append(len(included))
        rows = (1 / (1 + np.exp(-self.x @ weights)) - self.y)[:, None] * self.x
        total = np.zeros_like(weights)
        for unit in included:
            gradient = rows[self.unit == unit].sum(axis=0)
            total += gradient * min(1.0, privacy.max_grad_norm / max(float(np.linalg.norm(gradient)), 1e-300))
        return total

    def _noised(self, total: Floats, step: int) -> Floats:
        if self.job.privacy.noise_multiplier is None:
            return total
        deviation = self.job.privacy.noise_multiplier * self.job.privacy.max_grad_norm
        grid = 2.0 ** (math.floor(math.log2(deviation)) - 20)
        noise = np.concatenate(
            [self._gaussian(len(total) - 1, step, "linear.weight"), self._gaussian(1, step, "linear.bias")]
        )
        return np.asarray(np.rint((total + deviation * noise) / grid) * grid)

    def delta(self, nominal_units: int) -> Floats:
        start = np.concatenate([self.base["linear.weight"].ravel(), self.base["linear.bias"]]).astype(np.float64)
        weights, velocity = start.copy(), np.zeros_like(start)
        for step in range(self.job.local_steps):
            noised = self._noised(self._sum_of_clipped(weights, step), step)
            velocity = self.job.momentum * velocity + noised / (self.job.privacy.sample_rate * nominal_units)
            weights = weights - self.job.learning_rate * velocity
        return weights - start


ROUNDS = {
    "persons from zero weights": ({}, 0.0),
    "persons from other weights": ({}, 0.3),
    "persons, so few that some steps sample nobody": ({"privacy": {"sample_rate": 0.05}, "local_steps": 12}, 0.0),
    "persons, everybody in every step": ({"privacy": {"sample_rate": 1.0, "noise_multiplier": 6.0}}, 0.0),
    "persons, under a bound that clips all of them": ({"privacy": {"max_grad_norm": 0.01}}, 0.3),
    "persons, without momentum": ({"momentum": 0.0}, 0.0),
    "no privacy on public rows, so clipping and sampling alone": (
        {"privacy": {"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None}},
        0.0,
    ),
}


@pytest.mark.parametrize("which", ROUNDS)
def test_the_update_is_the_one_that_plain_numpy_computes(which: str, federation: Federation) -> None:
    changes, scale = ROUNDS[which]
    site, job, base = federation.create(), federation.job(**changes), federation.weights(scale)
    order = federation.order(job, base, round_number=3)
    update = arrays_of(ask(site, order, seed=5, clock=federation.clock))
    reference = Reference(site, job, base, seed=5, round_number=3)
    expected = reference.delta(site.config.lineages[0].nominal_units)
    np.testing.assert_allclose(
        np.concatenate([update["linear.weight"].ravel(), update["linear.bias"]]), expected, rtol=1e-5, atol=5e-6
    )
    assert np.abs(expected).max() > 1e-3
    assert (0 in reference.sampled) == ("nobody" in which)


def test_a_record_level_lineage_clips_each_row_by_itself(federation: Federation) -> None:
    site = federation.create(lineage={"unit": "record", "nominal_units": 50})
    toml = site.folder / "data/clinic/visits/dataset.toml"
    toml.write_text(toml.read_text().replace('unit_column = "patient"\n', ""))
    job, base = federation.job(privacy={"unit": "record"}), federation.weights()
    update = arrays_of(ask(site, federation.order(job), seed=5, clock=federation.clock))
    expected = Reference(site, job, base, seed=5, round_number=1).delta(50)
    np.testing.assert_allclose(
        np.concatenate([update["linear.weight"].ravel(), update["linear.bias"]]), expected, rtol=1e-5, atol=5e-6
    )


def test_an_injected_seed_is_called_unsafe_in_statement_and_ledger(federation: Federation) -> None:
    site = federation.create()
    answer = ask(site, federation.order(federation.job()), seed=5, clock=federation.clock)
    assert statement_of(site, answer).noise_source == "unsafe_seeded"
    assert site.ledger_entries()[2]["plan"]["noise_source"] == "unsafe_seeded"


def test_what_a_job_leaves_open_is_resolved_from_the_registration(federation: Federation) -> None:
    site = federation.create()
    job = federation.job(privacy={"delta": None, "unit": None, "noise_multiplier": None, "target_epsilon": 4.0})
    said = statement_of(site, ask(site, federation.order(job), clock=federation.clock))
    assert (said.delta, said.unit, said.job_digest) == (1e-5, "person", job.digest())
    noise = said.event["noise_multiplier"]
    assert compose_epsilon([PoissonSampledGaussian(noise, 0.5, 20)], 1e-5).epsilon <= 4.0
    assert compose_epsilon([PoissonSampledGaussian(0.98 * noise, 0.5, 20)], 1e-5).epsilon > 4.0


# --- asking again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"nonce": "ef" * 32, "issued_at": 1_800_000_005}], ids=["same order", "new nonce and time"]
)
def test_asking_again_gives_the_same_bytes_and_spends_nothing_more(
    federation: Federation, changes: dict[str, Any]
) -> None:
    site, job = federation.create(), federation.job()
    opened = site.open(clock=federation.clock)  # the site's own secret keys
    first = opened.session.run(federation.order(job))
    again = opened.session.run(federation.order(job, **changes))
    opened.close()
    before = spent(site)
    after_a_restart = ask(site, federation.order(job, **changes), clock=federation.clock)
    assert first.arrays == again.arrays == after_a_restart.arrays
    assert spent(site) == before
    assert kinds(site) == ["founded", "registered", "reserved", "content_noted", "committed"]
    assert statement_of(site, again).nonce == changes.get("nonce", "ab" * 32)
    assert [line["outcome"] for line in site.log()] == ["granted", "sealed"] + ["answered from store"] * 2


def test_two_sites_with_the_same_rows_draw_their_own_noise(federation: Federation) -> None:
    first, second = (federation.create(name, rows=1) for name in ("clinic-1", "clinic-2"))
    answers = [
        ask(site, federation.order(federation.job(), site_id=site.config.site_id), clock=federation.clock)
        for site in (first, second)
    ]
    assert answers[0].arrays != answers[1].arrays


def test_rounds_of_one_job_add_up_in_the_statement(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    said = [
        statement_of(site, ask(site, federation.order(job, round_number=number), clock=federation.clock))
        for number in (1, 2, 3)
    ]
    expected = [compose_epsilon([PoissonSampledGaussian(2.0, 0.5, steps)], 1e-5).epsilon for steps in (4, 8, 12)]
    assert [statement.epsilon for statement in said] == expected


OTHER_COMPUTATIONS = {
    "from another base model": ({}, 0.5, Reason.ROUND_CONFLICT),
    "of another job under the same id": ({"learning_rate": 0.4}, 0.0, Reason.ROUND_CONFLICT),
    "with less noise under the same id": ({"privacy": {"noise_multiplier": 1.9}}, 0.0, Reason.ROUND_CONFLICT),
    "with more rounds under the same id": ({"rounds": 6}, 0.0, Reason.ROUND_CONFLICT),
    "without privacy under the same id": (
        {"privacy": {"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None}},
        0.0,
        Reason.ROUND_CONFLICT,
    ),
}


@pytest.mark.parametrize("which", OTHER_COMPUTATIONS)
def test_a_round_is_answered_for_one_computation_only(which: str, federation: Federation) -> None:
    changes, scale, reason = OTHER_COMPUTATIONS[which]
    site = federation.create()
    ask(site, federation.order(federation.job()), clock=federation.clock)
    before = site.ledger_entries()
    with pytest.raises(LedgerConflict) as refused:
        ask(site, federation.order(federation.job(**changes), federation.weights(scale)), clock=federation.clock)
    assert refused.value.reason is reason
    assert site.ledger_entries() == before


@pytest.mark.parametrize(
    ("may_grow", "reason"), [(False, Reason.CONTENT_CHANGED), (True, Reason.ROUND_CONFLICT)], ids=["fixed", "growing"]
)
def test_changed_rows_do_not_buy_a_second_release_of_the_same_round(
    may_grow: bool, reason: Reason, federation: Federation
) -> None:
    site, job = federation.create(), federation.job(lineages_may_grow=may_grow)
    ask(site, federation.order(job), clock=federation.clock)
    rows = site.folder / "data/clinic/visits/rows.csv"
    rows.write_text(rows.read_text() + "p999,1,2,3,1\n")
    before = spent(site)
    shutil.rmtree(site.folder / "released")  # what is kept would be sent again
    with pytest.raises(EnclaveError) as refused:
        ask(site, federation.order(job), clock=federation.clock)
    assert refused.value.reason is reason
    assert spent(site) == before


def test_splitting_a_job_does_not_dodge_the_lineage_cap(federation: Federation) -> None:
    site = federation.create(lineage={"epsilon": 12.0})
    outcomes = []
    for number in range(1, 5):
        opened = site.open(clock=federation.clock)
        job = federation.job(job_id=f"study-{number}", rounds=1, local_steps=20)
        try:
            opened.session.run(federation.order(job))
            outcomes.append("answered")
        except EnclaveError as refusal:
            outcomes.append(refusal.reason.value)
        finally:
            claim = opened.ledger.lineage_claim(site.lineage)
            opened.close()
        assert claim.spent_pico <= claim.budget_pico
    assert outcomes[0] == "answered"
    assert outcomes[-1] == "budget_exceeded"
