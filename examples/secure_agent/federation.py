"""Three simulated hospitals over scikit-learn's breast cancer data, and a job for them: what the tutorial begins with.

``python -m examples.secure_agent.federation runs/secure_agent`` founds them; nothing is downloaded. A quarter of the
rows is set aside as the public evaluation set, the rest is dealt out, an equal share each.

Source: W. Wolberg, O. Mangasarian, N. Street, W. Street, Breast Cancer Wisconsin (Diagnostic), UCI, 1995 (CC BY 4.0).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import tomli_w

from aegis.errors import AegisError
from aegis.federation import EvaluationSet, FederationConfig, FederationFolder, dump_job
from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.datasets import DataFormat, DatasetSchema, Label, TensorFeatures
from coreason_enclave.errors import ConfigurationError, EnclaveError
from coreason_enclave.schemas import (
    AggregationStrategy,
    FederationJob,
    Mechanism,
    PrivacyConfig,
    Profile,
)
from coreason_enclave.site import create_site
from examples.simulated_sites import Budget, simulated_site

__all__ = ["create", "job"]

SITES = ("site-1", "site-2", "site-3")
DATASET_ID = "clinic/cells"
DELTA = 1e-5
_FEATURES = 30
_SPLIT_SEED = 0
_FILE = "cells.safetensors"
_SCHEMA = DatasetSchema(
    version=1,
    dataset_id=DATASET_ID,
    format=DataFormat.SAFETENSORS,
    file=_FILE,
    public=True,
    label=Label(column="y", classes=2),
    tensor=TensorFeatures(shape=(_FEATURES,), low=-3.0, high=3.0),
)

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def job() -> FederationJob:
    """Three rounds of one pass each: 60 of the 68 steps that epsilon 3 affords at noise 1 and rate 0.05."""
    return FederationJob(
        job_id="breast-cancer",
        min_clients=3,
        rounds=3,
        strategy=AggregationStrategy.FED_AVG,
        privacy=PrivacyConfig(
            mechanism=Mechanism.DP_SGD,
            target_epsilon=3.0,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            sample_rate=0.05,
            delta=DELTA,
        ),
        dataset_id=DATASET_ID,
        model_arch="LogisticRegression",
        model_args={"in_features": _FEATURES},
        local_steps=20,
        learning_rate=0.5,
    )


def create(root: Path) -> None:
    """Found the hospitals and their federation in ``root/federation``, and write ``root/job.yaml``.

    Raises:
        ConfigurationError: they are there already.
    """
    federation = FederationFolder(root / "federation")
    if federation.path.exists():
        raise ConfigurationError(f"{federation.path} exists: name another folder, or remove it with all its budgets")
    features, labels = _rows()
    public, *shares = np.array_split(np.random.default_rng(_SPLIT_SEED).permutation(len(labels)), len(SITES) + 1)
    folders = {site: federation.path / "sites" / site for site in SITES}
    keys = {site: load_or_create_signer(folder / "keys" / "signing.key").public_hex for site, folder in folders.items()}
    for (site, folder), rows in zip(folders.items(), shares, strict=True):
        _write_rows(folder, features[rows], labels[rows])
        config = simulated_site(
            site,
            coordinator_key=federation.signer().public_hex,
            participants=keys,
            dataset_id=DATASET_ID,
            declared=len(rows) // 10 * 10,
            budget=Budget(epsilon=5.0, job_epsilon=3.0, delta=DELTA),
            model_arch="LogisticRegression",
            min_clients=2,
        )
        create_site(folder, config)
    federation.save_evaluation_set(EvaluationSet(_SCHEMA.scale_tensor(features[public]), labels[public]))
    federation.create(
        FederationConfig(profile=Profile.DEVELOPMENT, delta=DELTA, public_keys=keys, attester="simulated")
    )
    (root / "job.yaml").write_text(dump_job(job()), encoding="utf-8")


def _rows() -> tuple[Features, Labels]:
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    return np.clip(standard, -3, 3).astype(np.float32), labels.astype(np.int64)


def _write_rows(site: Path, features: Features, labels: Labels) -> None:
    folder = site.joinpath("data", *DATASET_ID.split("/"))
    folder.mkdir(parents=True)
    (folder / "dataset.toml").write_bytes(tomli_w.dumps(_SCHEMA.model_dump(mode="json", exclude_none=True)).encode())
    (folder / _FILE).write_bytes(safetensors.numpy.save({"x": features, "y": labels}))


def main() -> int:
    """Found them in the folder that the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("root", type=Path, help="a folder that does not hold a federation yet")
    root = parser.parse_args().root
    try:
        create(root)
    except (AegisError, EnclaveError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{len(SITES)} SIMULATED sites in {root / 'federation'}, and their job in {root / 'job.yaml'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
