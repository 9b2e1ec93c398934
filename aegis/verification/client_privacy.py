"""Checks client-level privacy: each round's charge in the coordinator's ledger, and the composed epsilon.

Three questions need the coordinator's secret key and the updates, and are reported as open:

- whether the key sampled the sites;
- whether the coordinator clipped the updates;
- whether the models contain the noise.
"""

from __future__ import annotations

from aegis.client_privacy import round_of
from aegis.errors import VerificationFailed
from aegis.runs import EXPORT
from aegis.verification.epsilon import is_same
from aegis.verification.findings import Answers, Reference, holds, require, stays_open
from aegis.verification.ledgers import SiteLedger, read_ledger
from aegis.verification.records import ClientStatement, Records
from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
from coreason_enclave.ledger import LedgerRound, NoiseSource, RoundPlan
from coreason_enclave.schemas import ClientPrivacyConfig, PrivacyUnit


def check_client_privacy(records: Records, _: Reference) -> Answers:
    """Check each round's charge against the job's mechanism, and the stated epsilon against all charges composed."""
    promised, stated = records.job.client_privacy, records.outcome.client_privacy
    if promised is None:
        require(stated is None, "outcome.json states client-level privacy, which the job does not have")
        yield holds("the job promises nothing about whole sites, and nothing is stated")
        return
    if stated is None:
        raise VerificationFailed("outcome.json does not state the client-level privacy that the job has")
    ledger = read_ledger("coordinator", records.data(EXPORT))
    unknown = [draw for draw in records.trail.draws if not ledger.knows(draw.ledger_head)]
    require(not unknown, "the coordinator's ledger lacks an entry that its log names: rolled back, or another ledger")
    paid = [
        _paid(records, promised, ledger, record.round_number, record.model_digest) for record in records.state.history
    ]
    _require_noise_called_what_it_is(records, paid)
    yield holds(f"{len(paid)} rounds, each charged per client in the coordinator's ledger and committed with its model")
    yield holds(_composed(records, promised, stated, ledger))
    yield stays_open(
        "that sites were drawn, updates clipped, models noised: it takes the coordinator's secret key and the updates"
    )


def _paid(
    records: Records, promised: ClientPrivacyConfig, ledger: SiteLedger, round_number: int, model: str
) -> LedgerRound:
    """Return the ledger's record of the cohort sample that gave a round's model."""
    draws = [
        record
        for (job, number), record in ledger.rounds.items()
        if job == records.job.digest() and round_of(records.job, number) == round_number
    ]
    given = next((record for record in draws if record.update_digest == model), None)
    if given is None:
        raise VerificationFailed(
            f"round {round_number}: the coordinator's ledger committed no draw that gave its model"
        )
    require(
        given.actual == _event(promised, 1), f"round {round_number}: another mechanism was committed than the job's"
    )
    require(given.plan.unit is PrivacyUnit.CLIENT, f"round {round_number} was charged per {given.plan.unit}")
    return given


def _require_noise_called_what_it_is(records: Records, paid: list[LedgerRound]) -> None:
    sources = {record.plan.noise_source for record in paid if isinstance(record.plan, RoundPlan)}
    seeded = NoiseSource.UNSAFE_SEEDED in sources
    said = "an injected seed" if records.config.options.unsafe_seed is not None else "secret keys"
    require(
        seeded == (records.config.options.unsafe_seed is not None),
        f"config.json says {said}, the coordinator's ledger does not",
    )


def _composed(records: Records, promised: ClientPrivacyConfig, stated: ClientStatement, ledger: SiteLedger) -> str:
    """Compose every reserved cohort sample, with or without a resulting model, and compare with the statement."""
    draws = sum(job == records.job.digest() for job, _ in ledger.rounds)
    epsilon = compose_epsilon([_event(promised, draws)], promised.delta).epsilon
    require(
        is_same(records, stated.epsilon, epsilon),
        f"outcome.json states {stated.epsilon:.6g} per client, {draws} draws compose to {epsilon:.6g}",
    )
    cap = promised.target_epsilon
    require(epsilon <= cap or is_same(records, epsilon, cap), f"{epsilon:.4g} per client exceeds the job's cap {cap:g}")
    for name in ("delta", "noise_multiplier", "clip_norm", "sample_rate"):
        same = getattr(stated, name) == getattr(promised, name)
        require(same, f"outcome.json states another {name} of its client-level privacy than the job has")
    require(stated.unit == PrivacyUnit.CLIENT, f"outcome.json states client-level privacy per {stated.unit}")
    return f"{epsilon:.4g} of {cap:g} per client at delta {promised.delta:g}, over {draws} draws"


def _event(promised: ClientPrivacyConfig, draws: int) -> PoissonSampledGaussian:
    return PoissonSampledGaussian(promised.noise_multiplier, promised.sample_rate, draws)
