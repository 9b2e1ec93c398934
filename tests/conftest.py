"""A small real site and a real coordinator's key, for every test that needs a whole round.

Nothing is faked: keys, ledger, log and rows are files, and orders are signed. Frameworks are imported when a site is
first opened, so that tests without one stay quick.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.merkle import MerkleTree, leaf_hash
from coreason_enclave.crypto.signing import Signer, write_private
from coreason_enclave.policy import SiteConfig
from coreason_enclave.schemas import FederationJob, Profile
from coreason_enclave.wire.checkpoints import CHECKPOINT_TYPE, LogCheckpoint, LogProof, origin_of_run
from coreason_enclave.wire.documents import (
    ENROLMENT_TYPE,
    INVITATION_TYPE,
    ORDER_TYPE,
    CoordinatorIdentity,
    Enrolment,
    JobInvitation,
    RoundOrder,
)
from coreason_enclave.wire.roll_call import encode_roll_call
from coreason_enclave.wire.updates import SealedMessage, encode_arrays

pytest.register_assert_rewrite("tests.support.studies")

DATASET = "clinic/visits"
FEATURES = ("age", "income", "years")
NOMINAL_PERSONS = 24
CLINICS = tuple(f"clinic-{number}" for number in range(1, 10))
"""Sites whose keys every other one of them knows."""


def site_signer(site_id: str) -> Signer:
    """The signing key that a test's site of this name has."""
    return Signer.from_seed(_seed(site_id))


def _seed(site_id: str) -> bytes:
    return bytes.fromhex(sha256_hex(site_id.encode()))


def job(**changes: Any) -> FederationJob:
    """Five rounds of four steps that fit under epsilon 8; ``privacy`` holds the changes of the privacy part."""
    privacy: dict[str, Any] = {
        "mechanism": "DP_SGD",
        "target_epsilon": 8.0,
        "noise_multiplier": 2.0,
        "max_grad_norm": 1.0,
        "sample_rate": 0.5,
        "delta": 1e-5,
        "unit": "person",
        **changes.pop("privacy", {}),
    }
    fields: dict[str, Any] = {
        "job_id": "study-1",
        "min_clients": 1,
        "rounds": 5,
        "strategy": "FED_AVG",
        "privacy": {name: value for name, value in privacy.items() if value is not None},
        "dataset_id": DATASET,
        "model_arch": "LogisticRegression",
        "model_args": {"in_features": len(FEATURES)},
        "local_steps": 4,
        "learning_rate": 0.5,
        "momentum": 0.8,
        "round_deadline_s": 60.0,
    }
    return FederationJob.model_validate({**fields, **changes})


def write_rows(folder: Path, *, public: bool, seed: int, persons: int) -> None:
    """Persons with one to four rows each, and a label that the features explain in part."""
    random = np.random.default_rng(seed)
    who = np.repeat(np.arange(persons), random.integers(1, 5, persons))
    values = random.uniform(0, 10, (len(who), len(FEATURES)))
    visited = values @ [1.0, -1.0, 0.5] + random.normal(0, 2, len(who)) > 2.5
    order = random.permutation(len(who))  # a person's rows are not neighbours
    lines = [",".join(("patient", *FEATURES, "visited"))]
    lines += [f"p{who[i]:03d},{','.join(f'{v:.4f}' for v in values[i])},{int(visited[i])}" for i in order]
    where = folder / "data" / DATASET
    where.mkdir(parents=True)
    (where / "rows.csv").write_text("\n".join(lines) + "\n")
    features = "".join(f'[[features]]\nname = "{name}"\nlow = 0.0\nhigh = 10.0\n' for name in FEATURES)
    (where / "dataset.toml").write_text(
        f'version = 1\ndataset_id = "{DATASET}"\nformat = "csv"\nfile = "rows.csv"\npublic = {str(public).lower()}\n'
        f'unit_column = "patient"\n[label]\ncolumn = "visited"\nclasses = 2\n{features}'
    )


def site_config(site_id: str, coordinator_key: str, **changes: Any) -> SiteConfig:
    """A development site with one public, person-level lineage; ``policy`` and ``lineage`` hold their own changes."""
    policy = {
        "coordinator_keys": [coordinator_key],
        "participants": {name: site_signer(name).public_hex for name in CLINICS},
        "model_archs": ["LogisticRegression", "SimpleMLP"],
        "strategies": ["FED_AVG", "FED_PROX"],
        "aggregators": ["mean", "median", "trimmed_mean", "krum", "multi_krum"],
        "min_clients": 1,
        "min_noise_multiplier": 0.5,
        "min_units": 1,
        "max_update_norm": 1000.0,
        "max_order_lifetime_s": 3600,
        **changes.pop("policy", {}),
    }
    lineage = {
        "lineage": f"{site_id}/visits",
        "dataset_id": DATASET,
        "unit": "person",
        "nominal_units": NOMINAL_PERSONS,
        "public": True,
        "epsilon": 20.0,
        "delta": 1e-5,
        "job_epsilon": 10.0,
        "job_delta": 1e-5,
        **changes.pop("lineage", {}),
    }
    fields: dict[str, Any] = {
        "version": 1,
        "site_id": site_id,
        "profile": "development",
        "data_root": "data",
        "keys": "keys",
        "ledger": "ledger.sqlite",
        "audit": "audit.jsonl",
        "attester": "simulated",
        "policy": policy,
        "lineages": [lineage],
    }
    return SiteConfig.model_validate({**fields, **changes})


@dataclass(frozen=True)
class SmallSite:
    """A founded site folder, closed."""

    folder: Path
    config: SiteConfig
    public_key: str

    @property
    def lineage(self) -> str:
        """The site's one lineage."""
        return self.config.lineages[0].lineage

    def open(self, *, seed: int | None = None, **options: Any) -> Any:
        """Open it; ``seed`` injects the keys of a reproducible run.

        Models and updates travel in the open, so that a test can look at them; tests/handshake is about the rest.
        """
        from coreason_enclave.crypto.job_keys import UnsafeSeededNoise
        from coreason_enclave.site.opening import open_site
        from tests.support.in_the_open import in_the_open

        keys = None if seed is None else UnsafeSeededNoise(bytes([seed]) * 32)
        return in_the_open(open_site(self.folder, job_keys=keys, **options))

    def log(self) -> list[dict[str, Any]]:
        """The entries of the site's own log."""
        path = self.folder / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ledger_entries(self) -> list[dict[str, Any]]:
        """The entries of the site's ledger, from a verified export."""
        from coreason_enclave.ledger import SqliteLedger, verify_export

        ledger = SqliteLedger(self.folder / "ledger.sqlite", must_exist=True)
        try:
            export = ledger.export()
        finally:
            ledger.close()
        verify_export(export)
        return [json.loads(row["payload"]) for row in json.loads(export)["entries"]]


@dataclass(frozen=True)
class SmallFederation:
    """A coordinator's key, the sites that know it, and orders under it."""

    root: Path
    signer: Signer = field(default_factory=lambda: Signer.from_seed(bytes([7]) * 32))
    now: int = 1_800_000_000
    _profiles: list[Profile] = field(default_factory=lambda: [Profile.DEVELOPMENT])

    @property
    def profile(self) -> Profile:
        """The profile of the site created last, under which requests and enrolments are made."""
        return self._profiles[-1]

    def create(self, site_id: str = "clinic-1", *, rows: int = 1, persons: int = 20, **changes: Any) -> SmallSite:
        """Create a site; ``rows`` seeds its data."""
        from coreason_enclave.site.opening import create_site

        folder = self.root / site_id
        config = site_config(site_id, self.signer.public_hex, **changes)
        self._profiles.append(config.profile)
        write_private(folder / config.keys / "signing.key", _seed(site_id))  # known to the others in advance
        write_rows(folder, public=config.lineages[0].public, seed=rows, persons=persons)
        return SmallSite(folder, config, create_site(folder, config))

    def clock(self) -> float:
        """A clock that stands still."""
        return float(self.now)

    @staticmethod
    def job(**changes: Any) -> FederationJob:
        """See :func:`job`."""
        return job(**changes)

    @staticmethod
    def weights(scale: float = 0.0) -> dict[str, Any]:
        """Weights of the job's model: ``scale`` times 1, 2, 3 and a bias of ``scale``."""
        weight = scale * np.arange(1, len(FEATURES) + 1, dtype=np.float32).reshape(1, -1)
        return {"linear.weight": weight.astype(np.float32), "linear.bias": np.full(1, scale, np.float32)}

    def enrolment(self, job: FederationJob, site_id: str, *, signer: Signer | None = None, **changes: Any) -> bytes:
        """The envelope in which a site enrols for ``job``; ``changes`` are made without any check."""
        key = signer or site_signer(site_id)
        fields: dict[str, Any] = {
            "site_id": site_id,
            "public_key": key.public_hex,
            "profile": self.profile,
            "job_id": job.job_id,
            "job_digest": job.digest(),
            "enrolled_at": self.now,
            **changes,
        }
        return seal(ENROLMENT_TYPE, Enrolment.model_construct(**fields).canonical(), key)

    def roll_call(self, job: FederationJob, sites: Iterable[str]) -> bytes:
        """A roll-call of these sites, each enrolled by its own key."""
        return encode_roll_call({site: self.enrolment(job, site) for site in sites})

    def invitation(
        self,
        job: FederationJob,
        *,
        signer: Signer | None = None,
        payload_type: str = INVITATION_TYPE,
        **changes: Any,
    ) -> SealedMessage:
        """A signed invitation to ``job``; ``changes`` are to the invitation itself, made without any check."""
        fields: dict[str, Any] = {
            "job": job,
            "profile": self.profile,
            "site_id": "clinic-1",
            "nonce": "ab" * 32,
            "issued_at": self.now,
            "expires_at": self.now + 600,
            **changes,
        }
        return SealedMessage(
            seal(payload_type, JobInvitation.model_construct(**fields).canonical(), signer or self.signer)
        )

    def shown(self, job: FederationJob, number: Any, *, signer: Signer | None = None) -> dict[str, Any]:
        """A log that grows by two lines a round, as a site sees it that answers one round after the other."""
        tree = MerkleTree()
        for line in range(max(2 * number, 2) if isinstance(number, int) else 2):
            tree.append(leaf_hash(b"line %d" % line))
        origin, since = origin_of_run(job.digest()), max(tree.size - 2, 0)
        checkpoint = LogCheckpoint(origin=origin, size=tree.size, head="ee" * 32, root=tree.root().hex())
        proof = LogProof(since=since, hashes=tuple(each.hex() for each in tree.consistency(since)))
        envelope = seal(CHECKPOINT_TYPE, checkpoint.canonical(), signer or self.signer)
        return {"log": envelope.decode(), "log_proof": proof}

    def order(
        self,
        job: FederationJob,
        base: dict[str, Any] | None = None,
        *,
        signer: Signer | None = None,
        payload_type: str = ORDER_TYPE,
        roll_call: bytes | None = None,
        **changes: Any,
    ) -> SealedMessage:
        """A signed order for round 1 of ``job``; ``changes`` are to the order itself, made without any check.

        The roll-call is that of the addressed site and of as many others as ``min_clients`` needs.
        """
        arrays = encode_arrays(self.weights() if base is None else base)
        addressed = changes.get("site_id", "clinic-1")
        others = [name for name in CLINICS if name != addressed]
        called = self.roll_call(job, [addressed, *others[: job.min_clients - 1]]) if roll_call is None else roll_call
        fields: dict[str, Any] = {
            "job": job,
            "profile": self.profile,
            "round_number": 1,
            "site_id": "clinic-1",
            "nonce": "ab" * 32,
            "base_model_digest": sha256_hex(arrays),
            "roll_call_digest": sha256_hex(called),
            "coordinator": CoordinatorIdentity(kem_key="cc" * 32, challenge="dd" * 32),
            "attestation": "of no matter to a site that is opened in the open",
            **self.shown(job, changes.get("round_number", 1), signer=signer),
            "issued_at": self.now,
            "expires_at": self.now + 600,
            **changes,
        }
        envelope = seal(payload_type, RoundOrder.model_construct(**fields).canonical(), signer or self.signer)
        return SealedMessage(envelope, arrays, called)


@pytest.fixture
def federation(tmp_path: Path) -> SmallFederation:
    return SmallFederation(tmp_path / "sites")


@pytest.fixture(scope="session")
def federation_at() -> Callable[[Path], SmallFederation]:
    """For fixtures that live longer than one test."""
    return SmallFederation


@pytest.fixture
def study(federation: SmallFederation, tmp_path: Path) -> Callable[..., Any]:
    """Found ``sites`` sites (each with its own rows) and an empty run folder."""

    def make(sites: int = 3, **changes: Any) -> Any:
        from tests.support.studies import Study

        founded = [federation.create(f"clinic-{n}", rows=n, **changes) for n in range(1, sites + 1)]
        return Study(federation, tmp_path / "run", founded)

    return make
