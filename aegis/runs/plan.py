"""The plan of one run: job, federation, folder and options; and the start of the folder.

A plan names no running process. Three modules start from a plan:

- the coordinator (:mod:`aegis.runs.coordinate`);
- the command that runs a job (:mod:`aegis.runs.runner`);
- NVIDIA FLARE's side (:mod:`aegis.runs.nvflare_server`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aegis.coordination import require_resistance
from aegis.errors import InvalidJob, RunFolderError
from aegis.federation import FederationConfig, FederationFolder, resolve
from aegis.runs.connect import LocalLedger, RuntimeName
from aegis.runs.folder import RunFolder, installed_versions
from aegis.runs.known_jobs import require_same_job
from aegis.runs.pins import pinned, require_coordinator_key, require_pinned
from aegis.runs.results import lineages_of
from aegis.runs.site_privacy import require_site_budget
from aegis.runtimes.nvflare import FlareOptions
from aegis.stores import RoundRecord
from coreason_enclave.ledger import JobClaim, LineageClaim, steps_in_words
from coreason_enclave.schemas import FederationJob, Mechanism


@dataclass(frozen=True)
class RoundReport:
    """A completed round for an observer; ``lineages`` and ``jobs`` hold the local sites' own claims, by site."""

    record: RoundRecord
    lineages: Mapping[str, LineageClaim]
    jobs: Mapping[str, JobClaim] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    """The steps of this round's admitted updates, by site; empty for a job without privacy."""

    def spent(self) -> float:
        """Return the largest of the sites' epsilons in the job so far: of local ledgers, else of admitted updates."""
        ledgers = {site: claim.spent.epsilon for site, claim in self.jobs.items() if claim.spent is not None}
        admitted = {site: value for site, value in self.record.epsilon.items() if value is not None}
        return max({**admitted, **ledgers}.values(), default=0.0)

    def other_steps(self, local_steps: int) -> Iterator[str]:
        """Yield a line for each site whose training loop took other than ``local_steps`` in this round."""
        for site, ran in sorted(self.steps.items()):
            if ran != local_steps:
                yield f"{site}: {steps_in_words(local_steps, ran, local_steps=local_steps)}"


@dataclass(frozen=True)
class RunPlan:
    """The options of one run.

    Attributes:
        unsafe_seed: inject all sampling and noise from this number. Reproducible and unsafe; the run records the fact.
        attackers: number of sites (the first by name) under a simulated attacker.
        observe: called after each round.
        say: called with a line of text when the run waits longer than expected.
        readmit: sites whose strikes are cleared before the run continues.
        runtime: runtime that carries the messages; every runtime gives the same model.
        flare: hosting options of a run over NVIDIA FLARE.
    """

    federation: FederationFolder
    folder: RunFolder
    unsafe_seed: int | None = None
    attackers: int = 0
    observe: Callable[[RoundReport], None] = field(default=lambda _: None)
    say: Callable[[str], None] = field(default=lambda _: None)
    readmit: tuple[str, ...] = ()
    runtime: RuntimeName = RuntimeName.IN_PROCESS
    flare: FlareOptions = field(default_factory=FlareOptions)

    def options(self) -> dict[str, Any]:
        """Return the part of the configuration that a resumed run has to share."""
        return {"runtime": self.runtime.value, "unsafe_seed": self.unsafe_seed, "simulated_attackers": self.attackers}


def prepare(job: FederationJob, plan: RunPlan) -> FederationJob:
    """Start the run's folder, or check that the same job started it; return the job with every privacy value explicit.

    Raises:
        AegisError: the job or the folder cannot be used, or the run started under other values.
    """
    folder, federation = plan.folder, plan.federation
    config = federation.config()
    job = resolve(job, delta=config.delta)
    _require_attackers(plan, len(config.public_keys))
    require_site_budget(job, config)
    if folder.is_finished:
        raise RunFolderError(f"{folder.path} holds a finished run: choose another folder with --out")
    if folder.is_started:
        require_coordinator_key(federation)
        require_pinned(folder.read_json("config.json"), pinned(job, plan.options(), federation, config))
    else:
        require_resistance(config.public_keys, job)
        require_same_job(federation, job)
        folder.begin(job, _configuration(job, plan, config), federation.evaluation_data())
    return job


def report_round(plan: RunPlan, sites: Mapping[str, LocalLedger], job: FederationJob, record: RoundRecord) -> None:
    """Report a completed round to the plan's observer, with the present claims of the local sites' ledgers."""
    lineages = lineages_of(sites, job.dataset_id)
    claims = {name: sites[name].ledger.lineage_claim(lineage) for name, lineage in lineages.items()}
    jobs = {
        name: sites[name].ledger.job_claim(lineage, job.job_id)
        for name, lineage in lineages.items()
        if job.job_id in claims[name].jobs
    }
    plan.observe(RoundReport(record, claims, jobs, _steps_of(plan, job, record)))


def _steps_of(plan: RunPlan, job: FederationJob, record: RoundRecord) -> dict[str, int]:
    """Return the steps of the round's admitted updates: the record counts from the job's start."""
    if job.privacy.mechanism is Mechanism.NON_PRIVATE:
        return {}
    history = plan.folder.state().history if plan.folder.has_state else ()
    before = next((each.steps for each in reversed(history) if each.round_number < record.round_number), {})
    return {site: record.steps[site] - before.get(site, 0) for site in record.admitted}


def _configuration(job: FederationJob, plan: RunPlan, config: FederationConfig) -> dict[str, Any]:
    """Return the content of ``config.json``: the pinned values, and further facts about the start of the run."""
    return {
        "job": job.job_id,
        **pinned(job, plan.options(), plan.federation, config),
        "randomness": "secret keys made by each site" if plan.unsafe_seed is None else "UNSAFE: injected seed",
        "attestation": config.profile.label().get("attestation", "required"),
        "local_sites": [folder.name for folder in plan.federation.site_folders()],
        "versions": installed_versions(),
        **({"flare": plan.flare.described()} if plan.runtime is RuntimeName.NVFLARE else {}),
    }


def _require_attackers(plan: RunPlan, sites: int) -> None:
    if not sites:
        raise InvalidJob("the federation has no participants yet: admit a site first")
    if not 0 <= plan.attackers < sites:
        raise InvalidJob(f"attackers must be in [0, {sites - 1}]: at least one of {sites} sites stays honest")
    if plan.attackers and plan.runtime is RuntimeName.NVFLARE:
        raise InvalidJob("NVIDIA FLARE runs have no simulated attackers: choose another runtime")
