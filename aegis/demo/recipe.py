"""The demonstration's training job, derived from the few options of ``aegis demo``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aegis.coordination import updates_required
from aegis.demo.randhie_columns import DATASET_ID, schema_for
from aegis.errors import InvalidJob
from aegis.runs import RuntimeName
from coreason_enclave.schemas import (
    AggregationStrategy,
    Aggregator,
    FederationJob,
    Mechanism,
    PrivacyConfig,
    PrivacyUnit,
)

NAME = "randhie-visits"
"""The demonstration's study."""
DELTA = 1e-5

# Chosen by simulation on this public dataset:
# - half of the persons in each step, because large samples drown the noise;
# - momentum and averaging over the later rounds, because both average the noise;
# - a clipping bound that clips few persons.
_LOCAL_STEPS = 6
_SAMPLE_RATE = 0.5
_MAX_GRAD_NORM = 3.0
_LEARNING_RATE = 0.4
_MOMENTUM = 0.8
_AVERAGED_ROUNDS = 5

# Honest updates stay below 15 (noise at epsilon 0.1 included). The limit is wide on purpose: the demonstration measures
# the aggregator against an attacker, and a tight limit would already refuse the attacker's update.
MAX_UPDATE_NORM = 150.0


@dataclass(frozen=True)
class DemoOptions:
    """The options of ``aegis demo``; see its ``--help``. Resuming a run requires equal options."""

    epsilon: float = 3.0
    sites: int = 6
    rounds: int = 10
    aggregator: Aggregator = Aggregator.TRIMMED_MEAN
    attackers: int = 0
    unit: PrivacyUnit = PrivacyUnit.PERSON
    repeats: int = 4
    seed: int | None = None
    runtime: RuntimeName = RuntimeName.FLOWER

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON types, for the record."""
        chosen = {"aggregator": self.aggregator.value, "unit": self.unit.value, "runtime": self.runtime.value}
        return {**vars(self), **chosen}


def private_job(options: DemoOptions) -> FederationJob:
    """Return the differentially private job of the study.

    Raises:
        InvalidJob: too few sites for the aggregator's precondition, or no honest site left.
    """
    job = FederationJob(
        job_id=NAME,
        min_clients=min(3, options.sites),
        rounds=options.rounds,
        strategy=AggregationStrategy.FED_AVG,
        aggregator=options.aggregator,
        num_byzantine=0 if options.aggregator is Aggregator.MEAN else 1,
        privacy=PrivacyConfig(
            mechanism=Mechanism.DP_SGD,
            target_epsilon=options.epsilon,
            max_grad_norm=_MAX_GRAD_NORM,
            sample_rate=_SAMPLE_RATE,
            delta=DELTA,
            unit=options.unit,
        ),
        dataset_id=DATASET_ID,
        model_arch="LogisticRegression",
        model_args={"in_features": len(schema_for(options.unit).input_names)},
        local_steps=_LOCAL_STEPS,
        learning_rate=_LEARNING_RATE,
        momentum=_MOMENTUM,
        average_last_rounds=min(_AVERAGED_ROUNDS, options.rounds),
        max_update_norm=MAX_UPDATE_NORM,
    )
    if options.attackers >= options.sites:
        raise InvalidJob(f"--attackers must be below --sites ({options.sites}): at least one site stays honest")
    if updates_required(job) > options.sites:
        raise InvalidJob(
            f"{job.aggregator} with num_byzantine = {job.num_byzantine} needs {updates_required(job)} sites, but "
            f"--sites is {options.sites}"
        )
    return job
