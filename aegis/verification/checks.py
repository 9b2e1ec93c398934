"""The checks, in their order: each looks at the records and says what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from aegis.errors import VerificationFailed
from aegis.runs.folder import metrics_csv
from aegis.verification.findings import Check, Verdict
from aegis.verification.ledgers import SiteLedger
from aegis.verification.records import EXPECTED_FILES, Records, read_rows
from aegis.verification.trail import AuditedRound, AuditedUpdate
from coreason_enclave.accounting import Event, NonPrivate, PoissonSampledGaussian, compose_epsilon
from coreason_enclave.encoding import sha256_hex
from coreason_enclave.envelope import KeyRing
from coreason_enclave.hashlog import verify_checkpoint, verify_lines
from coreason_enclave.ledger import NoiseSource
from coreason_enclave.schemas import Provenance

__all__ = ["CHECKS", "Answer", "Reference"]

_TOLERANCE = 1e-4
"""Relative: between two builds of one accountant, or of one sum."""


@dataclass(frozen=True)
class Reference:
    """What the caller knows from elsewhere, and a run folder cannot vouch for itself.

    Attributes:
        coordinator_key: Ed25519, hex; None takes the run folder's own word for it.
        checkpoint: an older signed head of the same log, kept outside the run folder.
    """

    coordinator_key: str | None = None
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """One answer of a check."""

    verdict: Verdict
    detail: str


Answers = Iterator[Answer]


def _holds(detail: str) -> Answer:
    return Answer(Verdict.HOLDS, detail)


def _fails(detail: str) -> Answer:
    return Answer(Verdict.FAILS, detail)


def _open(detail: str) -> Answer:
    return Answer(Verdict.NOT_CHECKED, detail)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise VerificationFailed(message)


def check_files(records: Records, _: Reference) -> Answers:
    """Presence, and that the two unsigned documents can be read at all."""
    missing = [name for name in EXPECTED_FILES if not records.exists(name)]
    _require(not missing, f"missing: {', '.join(missing)}")
    yield _holds(f"{len(EXPECTED_FILES)} files; {records.config.profile} profile, {records.outcome.rounds} rounds")


def check_audit(records: Records, _: Reference) -> Answers:
    """The chain from its first line to its last, and that the lines tell one story."""
    head = verify_lines(records.audit)
    yield _holds(f"{head.size} lines, {len(records.trail.updates)} admitted updates, head {head.head[:16]}…")


def check_checkpoint(records: Records, reference: Reference) -> Answers:
    """The folder's own checkpoint covers the whole log; an older one from elsewhere covers its beginning."""
    key = records.config.coordinator_key if reference.coordinator_key is None else reference.coordinator_key
    keys, data = KeyRing({"coordinator": key}), records.data("audit.jsonl")
    signed = verify_checkpoint(data, records.data("audit.checkpoint.json"), keys)
    beyond = data.count(b"\n") - signed.size
    _require(beyond == 0, f"{beyond} lines follow the signed head: they were added after the run")
    yield _holds(f"signed at line {signed.size} by key {key[:16]}…")
    if reference.checkpoint is not None:
        older = verify_checkpoint(data, reference.checkpoint, keys)
        yield _holds(f"agrees with the older checkpoint, signed at line {older.size}")


def check_job(records: Records, _: Reference) -> Answers:
    """One job in job.yaml, log, configuration and state."""
    digest = records.job.digest()
    audited = ", ".join(sorted(records.trail.jobs)) or "none"
    _require(records.trail.jobs == {digest}, f"job.yaml has digest {digest[:16]}…, the log started {audited[:80]}")
    _require(records.config.job_digest == digest, "config.json names another job")
    _require(records.state.job_digest == digest, "state/state.json belongs to another job")
    yield _holds(f"{records.job.job_id}, digest {digest[:16]}…")


def check_rounds(records: Records, _: Reference) -> Answers:
    """Numbers, sites and models of every round; metrics but for epsilon, which has a check of its own."""
    rounds, history = records.trail.rounds, records.state.history
    expected = list(range(1, records.job.rounds + 1))
    _require([each.number for each in rounds] == expected, f"the log does not complete rounds 1 to {len(expected)} in order")
    _require([each.round_number for each in history] == expected, "state/state.json has other rounds than the log")
    _require(len(records.state.models) == len(history) + 1, "state/state.json does not name one model for each round")
    for audited, record, model in zip(rounds, history, records.state.models[1:], strict=True):
        same = set(audited.admitted) == set(record.admitted) and audited.model in (None, record.model_digest)
        _require(same and model == record.model_digest, f"round {audited.number}: state/state.json differs from the log")
    _require(records.outcome.rounds == len(history), f"outcome.json says {records.outcome.rounds} rounds of {len(history)}")
    _require(records.outcome.metrics == history[-1].metrics, "outcome.json has other metrics than the last round")
    _require_same_cells(records.metrics, read_rows(metrics_csv(history)))
    yield _holds(f"{len(history)} rounds")


def _require_same_cells(stated: tuple[Mapping[str, str], ...], recorded: list[dict[str, str]]) -> None:
    _require(len(stated) == len(recorded), f"metrics.csv has {len(stated)} lines for {len(recorded)} rounds")
    for number, (mine, theirs) in enumerate(zip(stated, recorded, strict=True), start=1):
        differing = sorted(
            name for name in mine.keys() | theirs.keys() if not _is_epsilon(name) and mine.get(name) != theirs.get(name)
        )
        _require(not differing, f"metrics.csv, round {number}: {', '.join(differing)} differs from state/state.json")


def _is_epsilon(column: str) -> bool:
    return column.startswith("epsilon:")


def check_model(records: Records, _: Reference) -> Answers:
    """The file's digest against log and outcome, and its weights against the rounds' own models."""
    digest, released = sha256_hex(records.data("model.safetensors")), records.trail.released
    if released is None:
        raise VerificationFailed("the log does not end with the release of a model")
    _require(digest == released.model, f"its digest is {digest[:16]}…, the log released {released.model[:16]}…")
    _require(digest == records.outcome.model, "outcome.json names another model")
    yield _holds(f"digest {digest[:16]}…")
    yield _derivation(records, released.averaged_rounds)


def _derivation(records: Records, averaged_rounds: int) -> Answer:
    names = [f"state/models/{each}.safetensors" for each in records.state.models[1:][-averaged_rounds:]]
    if not all(records.exists(name) for name in names):
        return _open("whether it is the average of the last rounds' models: they are no longer in state/models")
    damaged = [name for name in names if sha256_hex(records.data(name)) not in name]
    _require(not damaged, f"{', '.join(damaged)} does not have the digest that it is named by")
    released, models = records.model("model.safetensors"), [records.model(name) for name in names]
    for name, array in released.items():
        mean = np.mean([model[name].astype(np.float64) for model in models if name in model] or [np.nan], axis=0)
        close = mean.shape == array.shape and np.allclose(array, mean, rtol=_TOLERANCE, atol=1e-7)
        _require(bool(close), f"{name} is not the average of the last {len(models)} rounds' models")
    return _holds(f"the average of the last {len(models)} rounds' models")


def check_ledgers(records: Records, _: Reference) -> Answers:
    """Each export by itself, and against every head that came with an admitted update."""
    for site, ledger in records.ledgers.items():
        if isinstance(ledger, str):
            yield _fails(f"{site}: {ledger}")
            continue
        unknown = [update for update in _updates_of(records, site) if not ledger.knows(update.ledger_head)]
        if unknown:
            where = f"entry {unknown[0].ledger_head.seq}, which the coordinator saw (line {unknown[0].line})"
            yield _fails(f"{site}: {where}, is not in its ledger: rolled back, or the ledger of another site")
        else:
            head = ledger.findings.head
            yield _holds(f"{site}: {ledger.findings.entries} entries, head {head.seq}:{head.hash[:16]}…")


def check_events(records: Records, _: Reference) -> Answers:
    """Every admitted update, those of repeated attempts included, against the ledger of its site."""
    for site, ledger in records.ledgers.items():
        if isinstance(ledger, str):
            yield _open(f"{site}: its ledger does not verify")
        else:
            yield _paid_for(records, site, ledger)


def _paid_for(records: Records, site: str, ledger: SiteLedger) -> Answer:
    digest, replaced = records.job.digest(), False
    for update in _updates_of(records, site):
        if (difference := ledger.disagreement(digest, update)) is not None:
            return _fails(f"{site}, round {update.round_number} (line {update.line}): {difference}")
        if ledger.released(digest, update.round_number) == update.digest:
            continue
        if site not in records.config.declared_attackers:
            return _fails(f"{site}, round {update.round_number}: the admitted update is not the one that its ledger released")
        replaced = True
    if replaced:
        return _open(f"{site}: events agree; its updates were replaced after release, as config.json declares (attacker)")
    updates = _updates_of(records, site)
    return _holds(f"{site}: {len(updates)} updates, {sum(_steps(update.event) for update in updates)} steps")


def check_epsilon(records: Records, _: Reference) -> Answers:
    """Per site and round, in metrics.csv, state and outcome: composed again from the admitted events."""
    sites = sorted({site for each in records.trail.rounds for site in each.admitted})
    stated = {name for row in records.metrics for name, value in row.items() if _is_epsilon(name) and value}
    strangers = sorted((stated | {f"epsilon:{site}" for site in records.outcome.epsilon}) - {f"epsilon:{s}" for s in sites})
    _require(not strangers, f"an epsilon is stated for {', '.join(strangers)}, of which no update was admitted")
    _require(len(records.metrics) == len(records.trail.rounds), "metrics.csv does not have one line a round")
    for site in sites:
        yield _epsilon_of(records, site)


def _epsilon_of(records: Records, site: str) -> Answer:
    history, bounds = records.state.history, None
    for index, events in enumerate(_running_events(records.trail.rounds, site)):
        bounds = _bounds(records, events)
        places: dict[str, object] = {"metrics.csv": records.metrics[index].get(f"epsilon:{site}") or None}
        if index < len(history):
            places["state/state.json"] = history[index].epsilon.get(site)
        if index == len(records.trail.rounds) - 1:
            places["outcome.json"] = records.outcome.epsilon.get(site)
        for place, value in places.items():
            if not _is_within(value, bounds):
                expected = "no epsilon" if bounds is None else f"epsilon {bounds[0]:.6g}"
                return _fails(f"{site}, round {index + 1}: {place} states {value}, its events give {expected}")
    return _holds(f"{site}: {_claimed(records, site, bounds)}")


def _running_events(rounds: tuple[AuditedRound, ...], site: str) -> Iterator[tuple[Event, ...]]:
    events: tuple[Event, ...] = ()
    for each in rounds:
        if site in each.admitted:
            events = (*events, each.admitted[site].event)
        yield events


def _bounds(records: Records, events: tuple[Event, ...]) -> tuple[float, float] | None:
    """The least and the most that may be stated: what ran, and as many steps at the job's own noise and rate."""
    privacy = records.job.privacy
    private = [event for event in events if isinstance(event, PoissonSampledGaussian)]
    if len(private) < len(events) or not events or privacy.delta is None or privacy.noise_multiplier is None:
        return None
    steps = sum(event.steps for event in private)
    most = PoissonSampledGaussian(privacy.noise_multiplier, privacy.sample_rate, steps)
    least_epsilon = compose_epsilon(private, privacy.delta).epsilon
    return least_epsilon, max(least_epsilon, compose_epsilon([most], privacy.delta).epsilon)


def _is_within(value: object, bounds: tuple[float, float] | None) -> bool:
    if bounds is None or value is None:
        return bounds is None and value is None
    try:
        number = float(str(value))
    except ValueError:
        return False
    least, most = bounds
    return math.isfinite(number) and least * (1 - _TOLERANCE) <= number <= most * (1 + _TOLERANCE)


def _claimed(records: Records, site: str, bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return "non-private training: no epsilon is stated, and none holds"
    target, delta = records.job.privacy.target_epsilon, records.job.privacy.delta
    _require(target is None or bounds[0] <= target * (1 + _TOLERANCE), f"{site}: {bounds[0]:.4g} exceeds the cap {target}")
    sentence = f"{bounds[0]:.4g} of {target} at delta {delta}"
    ledger = records.ledgers[site]
    claim = None if isinstance(ledger, str) else ledger.claim(records.job.digest())
    if claim is None or claim.guarantee is None or claim.guarantee.epsilon <= bounds[1] * (1 + _TOLERANCE):
        return sentence
    return f"{sentence}; its ledger counts {claim.guarantee.epsilon:.4g}, for what was not admitted is spent as well"


def check_labels(records: Records, _: Reference) -> Answers:
    """Provenance, profile and randomness: documents against log and ledgers."""
    config, outcome = records.config, records.outcome
    audited = {update.provenance for each in records.trail.rounds for update in each.admitted.values()}
    _require(audited == set(outcome.provenance), f"outcome.json says {_names(outcome.provenance)}, the log {_names(audited)}")
    _require(records.trail.profiles == {config.profile}, f"config.json says profile {config.profile}, the log does not")
    simulated = Provenance.SIMULATED in audited
    _require(simulated == (config.attestation == "simulated"), "config.json hides or invents simulated attestation")
    seeded = _seeded_sites(records)
    said = "an injected seed" if config.options.unsafe_seed is not None else "secret keys"
    _require(bool(seeded) == (config.options.unsafe_seed is not None), f"config.json says {said}, the ledgers do not")
    yield _holds(f"provenance {_names(audited)}, noise from {said}")


def _seeded_sites(records: Records) -> list[str]:
    digest = records.job.digest()
    unsafe = {update.site for update in records.trail.updates if update.noise_source == NoiseSource.UNSAFE_SEEDED}
    for site, ledger in records.ledgers.items():
        if isinstance(ledger, SiteLedger) and NoiseSource.UNSAFE_SEEDED in ledger.noise_sources(digest):
            unsafe.add(site)
    return sorted(unsafe)


def _names(values: object) -> str:
    return ", ".join(sorted(str(value) for value in values)) or "nothing"  # type: ignore[attr-defined]


def _updates_of(records: Records, site: str) -> list[AuditedUpdate]:
    return [update for update in records.trail.updates if update.site == site]


def _steps(event: Event) -> int:
    return 0 if isinstance(event, NonPrivate) else event.steps


@dataclass(frozen=True)
class _Step:
    """A check, what it asks of the records, and which checks have to hold for its answer to mean anything."""

    run: Callable[[Records, Reference], Answers]
    needs: tuple[Check, ...] = ()


CHECKS: Mapping[Check, _Step] = {
    Check.FILES: _Step(check_files),
    Check.AUDIT: _Step(check_audit),
    Check.CHECKPOINT: _Step(check_checkpoint),
    Check.JOB: _Step(check_job, needs=(Check.AUDIT,)),
    Check.ROUNDS: _Step(check_rounds, needs=(Check.AUDIT, Check.JOB)),
    Check.MODEL: _Step(check_model, needs=(Check.AUDIT,)),
    Check.LEDGERS: _Step(check_ledgers, needs=(Check.AUDIT,)),
    Check.EVENTS: _Step(check_events, needs=(Check.AUDIT, Check.JOB)),
    Check.EPSILON: _Step(check_epsilon, needs=(Check.AUDIT, Check.JOB)),
    Check.LABELS: _Step(check_labels, needs=(Check.AUDIT, Check.JOB)),
}
