"""Says before a job runs: its price in privacy, its noise, its time, and which sites would refuse.

Nothing here reads a row of a site: numbers of persons come from the declared, public ``nominal_units``.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aegis.aggregation import updates_needed
from aegis.coordination import require_resistance
from aegis.errors import InvalidAggregation, InvalidJob
from aegis.federation import FederationFolder
from coreason_enclave.accounting import (
    Change,
    PoissonSampledGaussian,
    changes_within_cap,
    compose_epsilon,
    last_affordable_step,
    privacy_event,
    require_less_noise_than_norm,
    resolve_privacy,
    signal_to_noise,
)
from coreason_enclave.crypto import Keystream
from coreason_enclave.datasets import DatasetSchema, declared_schema, synthetic_dataset
from coreason_enclave.errors import EnclaveError, JobRejected
from coreason_enclave.ledger import Reservation, SqliteLedger, beyond_budget, schedule_of
from coreason_enclave.models import initial_weights, layout
from coreason_enclave.policy import LineagePolicy, load_site_config
from coreason_enclave.schemas import Aggregator, FederationJob, Mechanism, NeighboringRelation, PrivacyUnit

ROUND_OVERHEAD_S = {"in-process": 0.15, "flower": 1.0, "nvflare": 2.0}
"""Seconds of a round beside the training, by runtime: rough, for three sites and a small model on one host."""

_TIMED_STEPS = 4
_TIMED_ROWS = 20_000


@dataclass(frozen=True)
class PrivacyForecast:
    """The price of a job's whole schedule at each site.

    Attributes:
        epsilon, rdp_epsilon: of all steps, by the tight accountant (PLD) and by the Rényi accountant.
        affordable_steps: the most steps within ``cap``.
        changes: empty if the schedule fits.
    """

    steps: int
    noise_multiplier: float
    sample_rate: float
    delta: float
    cap: float
    epsilon: float
    rdp_epsilon: float
    affordable_steps: int
    affordable_rounds: int
    changes: tuple[Change, ...]

    @property
    def fits(self) -> bool:
        """Tell whether the whole schedule stays within the cap."""
        return self.epsilon <= self.cap


def forecast_privacy(job: FederationJob) -> PrivacyForecast | None:
    """Return the price of a resolved job, or None for a job without privacy.

    Each change is checked by the accountant before it is named.
    """
    privacy = job.privacy
    if privacy.noise_multiplier is None or privacy.target_epsilon is None or privacy.delta is None:
        return None
    sigma, rate, delta, cap = privacy.noise_multiplier, privacy.sample_rate, privacy.delta, privacy.target_epsilon
    spent = compose_epsilon([PoissonSampledGaussian(sigma, rate, job.total_steps)], delta)
    steps = last_affordable_step(sigma, rate, cap, delta, max_steps=job.total_steps)
    changes = changes_within_cap(
        noise_multiplier=sigma,
        sample_rate=rate,
        rounds=job.rounds,
        local_steps=job.local_steps,
        delta=delta,
        cap=cap,
    )
    return PrivacyForecast(
        job.total_steps,
        sigma,
        rate,
        delta,
        cap,
        spent.epsilon,
        spent.rdp_epsilon,
        steps,
        steps // job.local_steps,
        changes,
    )


@dataclass(frozen=True)
class NoiseForecast:
    """Noise against signal in one step, from declared numbers alone.

    Attributes:
        site_noise: expected norm of the noise in one site's averaged gradient, ``sqrt(d) * sigma * C / (q * n)``.
        averaged_noise: the same after the mean over ``sites`` sites.
        signal: the longest averaged gradient, the clipping norm C.
        ratio: signal over noise of the whole job at best, if every step points the same way.
    """

    parameters: int
    nominal_units: int
    sites: int
    signal: float
    site_noise: float
    averaged_noise: float
    ratio: float

    def words(self) -> str:
        """Return the comparison as a sentence."""
        judged = "learning is likely" if self.ratio >= 3 else "learning is doubtful" if self.ratio >= 1 else "hopeless"
        return (
            f"a step's noise, averaged over {self.sites} sites, has a norm of about {self.averaged_noise:.3g} against "
            f"a clipped signal of at most {self.signal:g}; over the whole job the signal is at best {self.ratio:.3g} "
            f"times the noise: {judged}"
        )


def forecast_noise(job: FederationJob, *, nominal_units: int, sites: int) -> NoiseForecast | None:
    """Return noise against signal of a resolved job, or None for a job without noise.

    Args:
        nominal_units: the smallest declared number of units of a site.
        sites: number of sites in the mean.
    """
    privacy = job.privacy
    if privacy.noise_multiplier is None or privacy.max_grad_norm is None:
        return None
    parameters = sum(math.prod(shape) for shape in layout(job.model_arch, job.model_args).values())
    noise = math.sqrt(parameters) * privacy.noise_multiplier * privacy.max_grad_norm
    noise /= privacy.sample_rate * nominal_units
    best = signal_to_noise(
        noise_multiplier=privacy.noise_multiplier,
        sample_rate=privacy.sample_rate,
        steps=job.total_steps,
        parameters=parameters,
        nominal_units=nominal_units,
    )
    root = math.sqrt(sites)
    return NoiseForecast(parameters, nominal_units, sites, privacy.max_grad_norm, noise, noise / root, best * root)


@dataclass(frozen=True)
class TimeForecast:
    """An ESTIMATE of the wall-clock time: measured steps over synthetic rows, and a usual overhead by runtime.

    Attributes:
        step_s: seconds of one training step on this machine.
        total_s: seconds of the whole job by runtime; sites on one host share its cores, so they count one by one.
    """

    step_s: float
    rows: int
    total_s: dict[str, float]


def forecast_time(job: FederationJob, schema: DatasetSchema, *, nominal_units: int, sites: int) -> TimeForecast:
    """Time a few steps of a resolved job over synthetic rows of the declared form.

    Raises:
        EnclaveError: the model does not train on such rows.
    """
    from coreason_enclave.privacy import LocalSgdTrainer, StepGate, TrainingScope, TrainingTask, enter

    steps, rows = min(job.local_steps, _TIMED_STEPS), min(nominal_units, _TIMED_ROWS)
    short = job.model_copy(update={"local_steps": steps})
    base = initial_weights(job.model_arch, job.model_args)
    dataset = synthetic_dataset(schema, max(rows, 8))

    def run() -> float:
        scope = TrainingScope(
            config=job.privacy,
            requested=job.privacy,
            reservation=_imagined(short),
            gate=StepGate(steps, job.privacy.target_epsilon),
            keystream=Keystream(
                secrets.token_bytes(32), job_digest="", round_number=1, base_model_digest="", dataset_digest=""
            ),
            nominal_units=rows,
            unit_of_row=dataset.unit_ids,
            drift=None,
            base=base,
        )
        began = time.perf_counter()
        with enter(scope):
            LocalSgdTrainer().train(TrainingTask(short, base, dataset, scope, lambda: False))
        return time.perf_counter() - began

    run()  # the first training pays for imports and caches
    step = run() / steps * max(1.0, nominal_units / rows)
    training = step * job.local_steps * sites
    return TimeForecast(
        step, len(dataset), {name: job.rounds * (training + extra) for name, extra in ROUND_OVERHEAD_S.items()}
    )


def _imagined(job: FederationJob) -> Reservation:
    """Return a made-up reservation, which no ledger holds."""
    return Reservation(
        reservation_id="00" * 32,
        lineage="plan",
        job_id=job.job_id,
        round_number=1,
        event=privacy_event(job.privacy, job.local_steps),
        step_limit=job.local_steps,
        prior_events=(),
        recomputed=False,
        actual=None,
        update_digest=None,
        target_epsilon=job.privacy.target_epsilon,
        delta=job.privacy.delta,
        unit=job.privacy.unit or PrivacyUnit.RECORD,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        noise_source=None,
    )


@dataclass(frozen=True)
class SiteForecast:
    """A site's answer to a job: ``accepts``, ``refuses`` with the reason, or ``not known here`` for a remote site."""

    site: str
    answer: str
    reason: str = ""
    nominal_units: int | None = None


def forecast_site(folder: Path, job: FederationJob) -> SiteForecast:
    """Return the answer of a site on this host, by its own policy and the budget left in its ledger."""
    site, lineage = folder.name, None
    try:
        config = load_site_config(folder / "site.toml")
        site = config.site_id
        lineage = config.lineage_of(job.dataset_id)
        resolved = _resolved_at(job, lineage)
        config.policy.check(resolved, lineage)
        parameters = sum(math.prod(shape) for shape in layout(job.model_arch, job.model_args).values())
        require_less_noise_than_norm(resolved, parameters=parameters, nominal_units=lineage.nominal_units)
        with closing(SqliteLedger(folder / config.ledger, must_exist=True)) as ledger:
            reason = _beyond_budget(ledger, lineage, resolved)
    except EnclaveError as error:
        return SiteForecast(site, "refuses", str(error), None if lineage is None else lineage.nominal_units)
    return SiteForecast(site, "refuses" if reason else "accepts", reason, lineage.nominal_units)


def _resolved_at(job: FederationJob, lineage: LineagePolicy) -> FederationJob:
    if job.privacy.unit not in (None, lineage.unit):
        raise JobRejected(f"the lineage protects each {lineage.unit}, but the job's unit is {job.privacy.unit}")
    privacy = resolve_privacy(job.privacy, delta=lineage.job_delta, total_steps=job.total_steps, unit=lineage.unit)
    return job.model_copy(update={"privacy": privacy})


def _beyond_budget(ledger: SqliteLedger, lineage: LineagePolicy, job: FederationJob) -> str:
    """Return why the ledger would stop the schedule early; empty if the ledger affords all steps."""
    plan, steps = schedule_of(job, lineage.unit), job.total_steps
    if plan is None:
        return ""
    affordable = ledger.affordable_steps(lineage.lineage, replace(plan, steps=steps))
    if affordable >= steps:
        return ""
    spent = beyond_budget(plan, ledger.lineage_claim(lineage.lineage))
    return spent or f"the job's own target_epsilon affords {affordable} of {steps} steps"


@dataclass(frozen=True)
class AggregatorForecast:
    """A rule that combines updates, and the most hostile sites among ``updates`` that the rule withstands."""

    rule: str
    updates: int
    num_byzantine: int | None
    """None: the rule needs more updates than the round has."""


def forecast_aggregators(updates: int) -> tuple[AggregatorForecast, ...]:
    """Return for each rule the largest ``num_byzantine`` among ``updates`` updates of a round.

    >>> {each.rule: each.num_byzantine for each in forecast_aggregators(4)}
    {'mean': 0, 'krum': 0, 'multi_krum': 0, 'trimmed_mean': 1, 'median': 1}
    """
    return tuple(AggregatorForecast(rule.value, updates, _largest(rule, updates)) for rule in Aggregator)


def _largest(rule: Aggregator, updates: int) -> int | None:
    found = None
    for hostile in range(updates):
        try:
            needed = updates_needed(rule, hostile)
        except InvalidAggregation:
            break
        if needed > updates:
            break
        found = hostile
    return found


@dataclass(frozen=True)
class Forecast:
    """Everything that can be known about a job before it runs. ``refusals`` is empty if the job would run."""

    job: FederationJob
    privacy: PrivacyForecast | None
    noise: NoiseForecast | None
    time: TimeForecast | None
    time_missing: str
    sites: tuple[SiteForecast, ...]
    aggregators: tuple[AggregatorForecast, ...]
    refusals: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the forecast as plain values."""
        plain = {
            "privacy": None if self.privacy is None else {**asdict(self.privacy), "fits": self.privacy.fits},
            "noise": None if self.noise is None else {**asdict(self.noise), "words": self.noise.words()},
            "time": None if self.time is None else asdict(self.time),
            "sites": [asdict(site) for site in self.sites],
            "aggregators": [asdict(each) for each in self.aggregators],
            "refusals": list(self.refusals),
        }
        return {"job": self.job.model_dump(mode="json", exclude_none=True), "would_run": not self.refusals, **plain}


def forecast(job: FederationJob, federation: FederationFolder, *, timed: bool = True) -> Forecast:
    """Return what is known about a job over a federation before it runs; nothing is reserved and no row is read.

    Raises:
        RunFolderError: the federation cannot be read.
        InvalidJob, EnclaveError: the job has no noise multiplier that reaches its cap, or no such model exists.
    """
    config = federation.config()
    members = sorted(set(config.public_keys) - set(config.revoked))
    if job.privacy.mechanism is Mechanism.DP_SGD:
        privacy = resolve_privacy(job.privacy, delta=config.delta, total_steps=job.total_steps)
        resolved = job.model_copy(update={"privacy": privacy})
    else:
        resolved = job
    layout(job.model_arch, job.model_args)
    local = {folder.name: folder for folder in federation.site_folders()}
    sites = tuple(
        forecast_site(local[name], resolved) if name in local else SiteForecast(name, "not known here")
        for name in members
    )
    units = min((site.nominal_units for site in sites if site.nominal_units is not None), default=None)
    cohort = min(job.cohort_size or len(members), len(members))
    spent = forecast_privacy(resolved)
    elapsed, missing = None, "no site on this machine declares the dataset"
    if timed and units is not None:
        elapsed, missing = _timed(resolved, local, units, cohort)
    noise = None if units is None else forecast_noise(resolved, nominal_units=units, sites=max(cohort, 1))
    aggregators = forecast_aggregators(min(job.min_clients, len(members)))
    refusals = tuple(_refusals(job, spent, sites, members))
    return Forecast(resolved, spent, noise, elapsed, missing, sites, aggregators, refusals)


def _timed(job: FederationJob, local: dict[str, Path], units: int, sites: int) -> tuple[TimeForecast | None, str]:
    try:
        folder = next(iter(local.values()))
        schema = declared_schema(folder / load_site_config(folder / "site.toml").data_root, job.dataset_id)
        return forecast_time(job, schema, nominal_units=units, sites=sites), ""
    except EnclaveError as error:
        return None, str(error)


def _refusals(
    job: FederationJob, spent: PrivacyForecast | None, sites: tuple[SiteForecast, ...], members: list[str]
) -> Iterator[str]:
    try:
        require_resistance(members, job)
    except InvalidJob as error:
        yield str(error)
    if spent is not None and not spent.fits:
        yield (
            f"{spent.steps} steps cost epsilon {spent.epsilon:.3f}, above the cap {spent.cap:g}: the sites would stop "
            f"after {spent.affordable_steps} steps"
        )
    willing = [site for site in sites if site.answer != "refuses"]
    if len(willing) < job.min_clients:
        yield f"at most {len(willing)} of {len(members)} sites would take part, and min_clients is {job.min_clients}"
    try:
        needed = updates_needed(job.aggregator, job.num_byzantine)
    except InvalidAggregation as error:
        yield str(error)
        return
    if needed > len(members):
        rule = f"{job.aggregator} with num_byzantine {job.num_byzantine}"
        yield f"{rule} needs {needed} updates, and the federation has {len(members)} sites"
