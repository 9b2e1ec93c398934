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
        require(stated is None, "outcome.json states client-level privacy, but the job has no client_privacy")
        yield holds("the job has no client_privacy, and no client-level epsilon is stated")
        return
    if stated is None:
        raise VerificationFailed("the job has client_privacy, but outcome.json states no client-level epsilon")
    ledger = read_ledger("coordinator", records.data(EXPORT))
    unknown = [draw for draw in records.trail.draws if not ledger.knows(draw.ledger_head)]
    require(not unknown, "the coordinator's ledger lacks an entry that the log names: rolled back, or another ledger")
    paid = [
        _charge_of(records, promised, ledger, record.round_number, record.model_digest)
        for record in records.state.history
    ]
    _require_noise_label(records, paid)
    yield holds(f"{len(paid)} rounds, each charged per client in the coordinator's ledger and committed with its model")
    yield holds(_composed(records, promised, stated, ledger))
    yield stays_open("sampling of sites, clipping and noise: the check needs the coordinator's secret key and updates")


def _charge_of(
    records: Records, promised: ClientPrivacyConfig, ledger: SiteLedger, round_number: int, model: str
) -> LedgerRound:
    """Return the ledger's record of the cohort sample that gave a round's model."""
    draws = [
        record
        for (job, number), record in ledger.rounds.items()
        if job == records.job.digest() and round_of(records.job, number) == round_number
    ]
    charge = next((record for record in draws if record.update_digest == model), None)
    if charge is None:
        raise VerificationFailed(f"round {round_number}: the coordinator's ledger has no cohort sample for the model")
    require(charge.actual == _event(promised, 1), f"round {round_number}: the coordinator's mechanism is not the job's")
    require(charge.plan.unit is PrivacyUnit.CLIENT, f"round {round_number}: charged per {charge.plan.unit}, not client")
    return charge


def _require_noise_label(records: Records, paid: list[LedgerRound]) -> None:
    sources = {record.plan.noise_source for record in paid if isinstance(record.plan, RoundPlan)}
    seeded = NoiseSource.UNSAFE_SEEDED in sources
    noise = "an injected seed" if records.config.options.unsafe_seed is not None else "secret keys"
    require(
        seeded == (records.config.options.unsafe_seed is not None),
        f"config.json says noise from {noise}, but the coordinator's ledger says otherwise",
    )


def _composed(records: Records, promised: ClientPrivacyConfig, stated: ClientStatement, ledger: SiteLedger) -> str:
    """Compose every reserved cohort sample, with or without a resulting model, and compare with the statement."""
    draws = sum(job == records.job.digest() for job, _ in ledger.rounds)
    epsilon = compose_epsilon([_event(promised, draws)], promised.delta).epsilon
    require(
        is_same(records, stated.epsilon, epsilon),
        f"outcome.json states {stated.epsilon:.6g} per client, but {draws} cohort samples compose to {epsilon:.6g}",
    )
    cap = promised.target_epsilon
    require(epsilon <= cap or is_same(records, epsilon, cap), f"{epsilon:.4g} per client exceeds the job's cap {cap:g}")
    for name in ("delta", "noise_multiplier", "clip_norm", "sample_rate"):
        same = getattr(stated, name) == getattr(promised, name)
        require(same, f"outcome.json and the job state different values of {name} for client-level privacy")
    require(stated.unit == PrivacyUnit.CLIENT, f"outcome.json states privacy per {stated.unit}, not per client")
    return f"{epsilon:.4g} of {cap:g} per client at delta {promised.delta:g}, over {draws} cohort samples"


def _event(promised: ClientPrivacyConfig, draws: int) -> PoissonSampledGaussian:
    return PoissonSampledGaussian(promised.noise_multiplier, promised.sample_rate, draws)
