"""Repeats a run on new simulated sites, to show how much another run of the same job would differ.

Each repetition copies the sites' public rows to sites with new keys and new ledgers. It draws other samples and other
noise, and spends nothing of the budgets of the study's own sites.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aegis.errors import InvalidStudy
from aegis.federation import FederationFolder
from aegis.runs import RunFolder, RunPlan, execute
from aegis.runtimes import create_site
from aegis.stores import RoundRecord
from aegis.studies.baseline import why_no_baseline
from aegis.studies.study import Study
from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.policy import SiteConfig, load_site_config
from coreason_enclave.schemas import FederationJob

REPEATS = "repeats"
"""Folder of a run: the records of its repetitions. The folder of this name in the study holds their sites and keys."""

MAX_REPEATS = 50


@dataclass(frozen=True)
class Simulation:
    """Options that only a simulation has.

    Attributes:
        unsafe_seed: inject all sampling and noise from this number. Reproducible and unsafe; the run records the fact.
        attackers: number of sites (the first by name) under a simulated attacker.
        repeats: repetitions of the job on new simulated sites.
    """

    unsafe_seed: int | None = None
    attackers: int = 0
    repeats: int = 0

    def to_dict(self) -> dict[str, int | None]:
        """Return the options (JSON types); a run that goes on has equal ones."""
        return {"unsafe_seed": self.unsafe_seed, "attackers": self.attackers, "repeats": self.repeats}


@dataclass(frozen=True)
class Repetitions:
    """Repeats one run of a study.

    Attributes:
        measures: the measures to say after each repetition, the first that a round has.
        say: called with a line of progress.
    """

    study: Study
    run: RunFolder
    simulation: Simulation
    measures: Sequence[str]
    say: Callable[[str], None] = field(default=lambda _: None)

    def histories(self) -> tuple[Sequence[RoundRecord], ...]:
        """Run, or finish, every repetition in this process; return the rounds of each."""
        return tuple(self._repeat(number) for number in range(1, self.simulation.repeats + 1))

    def _repeat(self, number: int) -> Sequence[RoundRecord]:
        which = f"repetition {number} of {self.simulation.repeats}, in this process, on new SIMULATED sites"
        seed = self.simulation.unsafe_seed
        sites = self.study.path / REPEATS / self.run.path.name / str(number)
        plan = RunPlan(
            renewed_sites(self.study.federation(), sites),
            RunFolder(self.run.path / REPEATS / str(number)),
            None if seed is None else seed + number,
            self.simulation.attackers,
        )
        if not plan.folder.is_finished:
            execute(self.run.job(), plan)
        history = plan.folder.state().history
        found = history[-1].metrics
        self.say(which + next((f": {name} {found[name]:.3f}" for name in self.measures if name in found), ""))
        return history


def require_repeatable(job: FederationJob, federation: FederationFolder, repeats: int) -> None:
    """Raise :class:`InvalidStudy` unless copies of the sites can repeat the job: all local, every row public."""
    if not 0 <= repeats <= MAX_REPEATS:
        raise InvalidStudy(f"--repeats takes 0 to {MAX_REPEATS}, got {repeats}")
    reason = why_no_baseline(job, federation) if repeats else None
    if reason is not None:
        raise InvalidStudy(f"--repeats copies simulated sites with public rows, and {reason}: leave --repeats out")


def renewed_sites(federation: FederationFolder, folder: Path) -> FederationFolder:
    """Return the federation of copied sites in ``folder``; create it, or complete an interrupted creation, if need be.

    The copies have the same rows and caps, new keys and empty ledgers.
    """
    fresh = FederationFolder(folder)
    if fresh.exists:
        return fresh
    config = federation.config()
    originals = {path: load_site_config(path / "site.toml") for path in federation.site_folders()}
    keys = {
        site.site_id: load_or_create_signer(folder / "sites" / site.site_id / site.keys / "signing.key").public_hex
        for site in originals.values()
    }
    for path, site in originals.items():
        own = folder / "sites" / site.site_id
        if not (own / "site.toml").exists():
            shutil.copytree(path / site.data_root, own / site.data_root, dirs_exist_ok=True)
            create_site(own, _renewed(site, fresh.signer().public_hex, keys))
    evaluation = federation.evaluation_set()
    if evaluation is not None:
        fresh.save_evaluation_set(evaluation)
    fresh.create(config.model_copy(update={"public_keys": keys}))
    return fresh


def _renewed(site: SiteConfig, coordinator_key: str, keys: dict[str, str]) -> SiteConfig:
    policy = site.policy.model_copy(update={"coordinator_keys": (coordinator_key,), "participants": keys})
    return site.model_copy(update={"policy": policy})
