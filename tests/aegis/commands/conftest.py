"""A real run of two small clinics, made once through the command line, and copies of it to be falsified."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from aegis.cli import main
from aegis.federation.job_files import dump_job
from aegis.federation.registry import EvaluationSet, FederationConfig, FederationFolder
from coreason_enclave.crypto.signing import write_private
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob

SITES = ("clinic-1", "clinic-2")


def invoke(*arguments: str | Path) -> Result:
    """Run ``aegis`` in this process, as its script does."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Study:
    """A created federation folder, and job files for it."""

    root: Path
    job: Callable[..., FederationJob]

    @property
    def federation(self) -> Path:
        return self.root / "federation"

    def write_job(self, name: str, **changes: Any) -> Path:
        path = self.root / f"{name}.yaml"
        path.write_text(dump_job(self.job(**{"job_id": name, "rounds": 3, "min_clients": 2, **changes})))
        return path


def found_study(root: Path, federation_at: Callable[[Path], Any]) -> Study:
    federation = FederationFolder(root / "federation")
    sites = federation_at(federation.path / "sites")
    write_private(federation.path / "coordinator" / "signing.key", bytes([7]) * 32)
    assert federation.signer().public_hex == sites.signer.public_hex
    founded = {site: sites.create(site, rows=number).public_key for number, site in enumerate(SITES, start=1)}
    federation.create(FederationConfig(profile=Profile.DEVELOPMENT, delta=1e-5, public_keys=founded))
    return Study(root, sites.job)


def public_examples() -> EvaluationSet:
    """A declared public evaluation set for the clinics' job; some rows stand there twice, so that scores tie."""
    chance = np.random.default_rng(3)
    features = chance.uniform(0, 1, (200, 3)).astype(np.float32)
    features[:40] = features[40:80]
    labels = (features @ [1.0, -1.0, 0.5] + chance.normal(0, 0.2, 200) > 0.25).astype(np.int64)
    return EvaluationSet(features, labels)


@pytest.fixture(scope="session")
def aegis() -> Callable[..., Result]:
    return invoke


@pytest.fixture
def study(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Study:
    return found_study(tmp_path, federation_at)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, federation_at: Callable[[Path], Any]) -> Path:
    """Three rounds, the model averaged over the last two. Never to be written to."""
    study = found_study(tmp_path_factory.mktemp("finished"), federation_at)
    FederationFolder(study.federation).save_evaluation_set(public_examples())
    job = study.write_job("study-1", average_last_rounds=2)
    result = invoke("run", job, "--federation", study.federation, "--out", study.root / "run")
    assert result.exit_code == 0, result.output
    return study.root / "run"


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may falsify."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
