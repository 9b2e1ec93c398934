"""Recomputes each round's model from the updates that the sites signed, with the run's own aggregator and optimizer.

A run keeps the arrays of every accepted update next to the update's envelope. The envelope names the digests of arrays
and base model, so the replay checks a round from both ends: the model sent to each site, and the model that the sites'
updates give. Digests are compared exactly; no tolerance applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from aegis.aggregation import aggregate
from aegis.errors import AggregationError, VerificationFailed
from aegis.stores import RoundRecord
from aegis.strategies import Moments, correction, next_server_control, next_site_control, server_step
from aegis.verification.audit_trail import AuditedRound, AuditedUpdate
from aegis.verification.findings import Answers, Reference, holds, is_missing, require
from aegis.verification.records import Records
from coreason_enclave.schemas import AggregationStrategy
from coreason_enclave.wire import AdmittedUpdate, Array, Arrays, layout_of, model_digest, with_correction


def check_aggregation(records: Records, _: Reference) -> Answers:
    """Check every round in order, from the initial model on:

    1. each accepted site signed the digest of the round's base model (under SCAFFOLD with the site's own correction);
    2. each update's arrays have the digest that the site signed;
    3. aggregator, server optimizer and control variates turn the updates into the model in the log.
    """
    if records.job.client_privacy is not None:
        yield is_missing("the single updates to recompute each model from; jobs with client-level privacy keep none")
        return
    memory = _ReplayState(records.kept_model(records.state.models[0]))
    for audited, record in zip(records.trail.rounds, records.state.history, strict=True):
        try:
            memory = _next(records, memory, audited, record)
        except (AggregationError, VerificationFailed) as error:
            raise VerificationFailed(f"round {record.round_number}: {error}") from error
    yield holds(f"{len(records.state.history)} rounds, recomputed from the signed updates with the same digests")


@dataclass(frozen=True)
class _ReplayState:
    """A coordinator's memory between rounds: global model, control variates, moments. Missing entries mean zeros."""

    model: Arrays
    control: Arrays | None = None
    variates: Mapping[str, Arrays] = field(default_factory=dict)
    moments: Moments | None = None

    def own(self, site: str) -> Arrays:
        return self.variates.get(site) or _zeros(self.model)

    def shared(self) -> Arrays:
        return self.control or _zeros(self.model)


def _next(records: Records, memory: _ReplayState, audited: AuditedRound, record: RoundRecord) -> _ReplayState:
    job = records.job
    updates = [_signed(records, memory, audited.admitted[site]) for site in sorted(audited.admitted)]
    combined = aggregate(
        updates,
        rule=job.aggregator,
        num_byzantine=job.num_byzantine,
        layout=layout_of(memory.model),
        max_norm=job.max_update_norm,
        weight_cap=job.num_examples_cap,
    )
    require(combined.used == record.used, f"the aggregator uses {', '.join(combined.used)}, the records name others")
    model, moments = server_step(memory.model, combined.delta, job.server_optimizer, memory.moments)
    same = model_digest(model) == record.model_digest
    require(same, "the model recomputed from the signed updates is not the model that the log names")
    following = replace(memory, model=model, moments=moments)
    if job.strategy is not AggregationStrategy.SCAFFOLD:
        return following
    counted = {update.site_id: update.arrays for update in updates if update.site_id not in combined.quarantined}
    steps_times_lr = job.local_steps * job.learning_rate
    variates = {
        site: next_site_control(memory.own(site), memory.shared(), arrays, steps_times_lr=steps_times_lr)
        for site, arrays in counted.items()
    }
    share = len(counted) / len({*record.enrolled, *counted})
    control = next_server_control(memory.shared(), combined.delta, share=share, steps_times_lr=steps_times_lr)
    return replace(following, control=control, variates={**memory.variates, **variates})


def _signed(records: Records, memory: _ReplayState, update: AuditedUpdate) -> AdmittedUpdate:
    """Return the aggregator's input for one accepted update; raise unless the site signed its base model and arrays."""
    statement, name = records.statement(update), f"state/updates/{update.envelope}.safetensors"
    base = memory.model
    if records.job.strategy is AggregationStrategy.SCAFFOLD:
        base = with_correction(base, correction(memory.shared(), memory.own(update.site)))
    require(statement.base_model_digest == model_digest(base), f"{update.site} signed that it received another model")
    require(records.exists(name), f"{name}, the update of {update.site}, is missing")
    require(records.digest(name) == statement.update_digest, f"{name} is not the update that {update.site} signed")
    return AdmittedUpdate(
        update.site,
        records.model(name),
        update.digest,
        update.event,
        update.provenance,
        statement.nominal_units,
    )


def _zeros(like: Arrays) -> dict[str, Array]:
    return {name: np.zeros_like(array) for name, array in like.items()}
