"""The server: one federated job over the clients, private, with the aggregator that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aegis.aggregation import updates_needed
from aegis.attacks.hostile import Attack, Overheard
from aegis.errors import RunPaused
from aegis.federated_coordinator import FederatedCoordinator
from aegis.federation import resolve
from aegis.rounds import CoordinatorHandshake, ParticipantView, RoundHooks, RunRecords
from aegis.runtimes import initial_model, open_sites, public_evaluator, seeded_keys
from aegis.stores import FileHeadStore, FileRunStore, RoundRecord
from coreason_enclave.attestation import Appraiser, AttestationPolicy, FileChallenges
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.crypto import HashLog, Signer
from coreason_enclave.hardware import SimulatedAttester
from coreason_enclave.schemas import (
    AggregationStrategy,
    Aggregator,
    FederationJob,
    Mechanism,
    PrivacyConfig,
    PrivacyUnit,
    Profile,
)
from coreason_enclave.wire import Arrays
from examples.flower_sim.client import DELTA, answering, found_clients, names_of
from examples.flower_sim.dataset import CLASSES, DATASET_ID, PIXELS, Digits

__all__ = ["EPSILON", "Trained", "digits_job", "hostile_tolerated", "train"]

EPSILON = 8.0

Updates = Mapping[int, Mapping[str, Arrays]]


@dataclass(frozen=True)
class Trained:
    """How one job ended.

    Attributes:
        rounds: the completed rounds. sent: every update as it was sent, by round and client, hostile ones included.
        paused: why the job stopped before its last round; empty where it did not.
    """

    job: FederationJob
    rounds: tuple[RoundRecord, ...]
    sent: Updates
    paused: str

    @property
    def accuracy(self) -> float | None:
        """On the public evaluation set, after the last completed round; None if there is none."""
        return self.rounds[-1].metrics["accuracy"] if self.rounds else None


def hostile_tolerated(aggregator: Aggregator, clients: int) -> int:
    """How many hostile clients the job declares: one, where the aggregator's guarantee has room for it."""
    room = aggregator is not Aggregator.MEAN and updates_needed(aggregator, 1) <= clients
    return 1 if room else 0


def digits_job(aggregator: Aggregator, clients: int, rounds: int) -> FederationJob:
    """The private job; its noise is calibrated so that ``rounds`` rounds cost each client :data:`EPSILON`."""
    job = FederationJob(
        job_id=f"digits-{aggregator.value.replace('_', '-')}",
        min_clients=3,
        rounds=rounds,
        strategy=AggregationStrategy.FED_AVG,
        aggregator=aggregator,
        num_byzantine=hostile_tolerated(aggregator, clients),
        privacy=PrivacyConfig(
            mechanism=Mechanism.DP_SGD,
            target_epsilon=EPSILON,
            max_grad_norm=1.0,
            sample_rate=0.5,
            delta=DELTA,
            unit=PrivacyUnit.RECORD,
        ),
        dataset_id=DATASET_ID,
        model_arch="SimpleMLP",
        model_args={"in_features": PIXELS, "hidden": 16, "classes": CLASSES},
        local_steps=5,
        learning_rate=1.0,
        momentum=0.5,
        max_update_norm=1000.0,
        round_deadline_s=120.0,
    )
    return resolve(job, delta=DELTA)


def train(
    folder: Path, digits: Digits, job: FederationJob, *, attack: Attack | None = None, unsafe_seed: int | None = None
) -> Trained:
    """Found new clients in ``folder`` and run ``job`` over them.

    Args:
        attack: what the last client does; None: it is honest like the others.
        unsafe_seed: inject all sampling and noise from this number: reproducible, and no privacy.
    """
    names = names_of(len(digits.shares))
    honest = names if attack is None else names[:-1]
    overheard = Overheard(honest)
    signer = Signer.generate()
    keys = found_clients(folder / "clients", digits, signer.public_hex, attack)
    store, audit = FileRunStore(folder / "state"), HashLog(folder / "audit.jsonl")
    paused = ""
    with open_sites(
        [folder / "clients" / name for name in names],
        keys,
        job_keys=lambda site: seeded_keys(unsafe_seed, site),
        adapt=answering(attack, names[-1], overheard),
    ) as sites:
        appraiser = Appraiser(AttestationPolicy.simulated_only(), Profile.DEVELOPMENT, NoEndorsements())
        coordinator = FederatedCoordinator(
            job,
            ParticipantView(sites.participants),
            CoordinatorHandshake(signer, appraiser, SimulatedAttester(), FileChallenges(folder / "challenges")),
            RunRecords(store, audit, FileHeadStore(folder / "heads")),
            hooks=RoundHooks(evaluate=public_evaluator(job, digits.evaluation.features, digits.evaluation.labels)),
        )
        try:
            coordinator.run(sites.grid, initial_model(job))
        except RunPaused as pause:
            paused = str(pause)
        finally:
            audit.close()
    state = store.load()
    return Trained(job, () if state is None else state.history, overheard.rounds(), paused)
