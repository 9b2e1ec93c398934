"""Pinned values of a run: recorded at its start, compared on every resume.

A run that continued under another profile, policy, key, code or evaluation set would mix two runs under one name.
``config.json`` holds the pinned values, and the first line of the log names that file's digest:

- the job, aggregator and strategy included, by its digest;
- the runtime, injected randomness and simulated attackers;
- the profile, the digest of the attestation policy, and the sites accepted without evidence;
- the coordinator's key, and the key of every participant;
- the claim that no person has data at two sites, where the federation makes the claim;
- the public evaluation set, by its digest;
- the running code: its version, and a digest over the source files of both packages.

Revocations remain unpinned: the operator may revoke a site during a run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from aegis.errors import RunFolderError
from aegis.federation import FederationConfig, FederationFolder
from aegis.runs.folder import installed_version
from coreason_enclave.crypto import canonical_json, sha256_hex
from coreason_enclave.schemas import FederationJob

_PACKAGES = ("aegis", "coreason_enclave")
_NEW_RUN = "or start a new run (another --out)"

_REMEDIES: Mapping[str, tuple[str, str]] = {
    "job_digest": ("the job", f"give the job that the run began with, {_NEW_RUN}"),
    "options": ("the runtime options", f"give the options that the run began with, {_NEW_RUN}"),
    "profile": ("the profile", f"restore profile in federation.toml, {_NEW_RUN}"),
    "attestation_policy": ("the attestation policy", f"restore [attestation] in federation.toml, {_NEW_RUN}"),
    "unattested_sites": ("the list unattested_sites", f"restore unattested_sites in federation.toml, {_NEW_RUN}"),
    "coordinator_key": ("the coordinator's key", "restore coordinator/signing.key of the federation from a backup"),
    "participants": ("the participants' keys", f"restore public_keys in federation.toml, {_NEW_RUN}"),
    "disjoint_units": ("the claim disjoint_units", f"restore disjoint_units in federation.toml, {_NEW_RUN}"),
    "evaluation_set": ("the evaluation set", f"restore evaluation.safetensors of the federation, {_NEW_RUN}"),
    "code": ("the code", f"install the version that began the run, {_NEW_RUN}"),
}
"""Description and remedy for each pinned value, by its name in ``config.json``. The first difference is reported."""


def pinned(
    job: FederationJob, options: Mapping[str, Any], federation: FederationFolder, config: FederationConfig
) -> dict[str, Any]:
    """Return the present values of everything that a run pins (JSON types).

    Raises:
        AegisError: a value cannot be determined: the policy or a usable evaluation set is missing.
    """
    evaluation = federation.evaluation_data()
    return {
        "job_digest": job.digest(),
        "options": dict(options),
        "profile": config.profile.value,
        "attestation_policy": config.attestation_policy().digest(),
        "unattested_sites": sorted(config.unattested_sites),
        "coordinator_key": federation.signer().public_hex,
        "participants": dict(config.public_keys),
        "disjoint_units": config.disjoint_units,
        "evaluation_set": None if evaluation is None else sha256_hex(evaluation),
        "code": code_in_use(),
    }


def require_pinned(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise if a pinned value differs from the recorded value.

    Raises:
        RunFolderError: names the value, the recorded and the present one, and the remedy.
    """
    for name, (description, remedy) in _REMEDIES.items():
        if name not in recorded:
            raise RunFolderError(f"config.json lacks {name}, one of the values that the run began with: {_NEW_RUN[3:]}")
        if recorded[name] != now[name]:
            before, present = _differing_values(recorded[name], now[name])
            raise RunFolderError(f"{description} changed: the run began with {before}, it is now {present}; {remedy}")


def require_coordinator_key(federation: FederationFolder) -> None:
    """Raise if the coordinator's key is missing: a resume would create a new key, which no site knows.

    Raises:
        RunFolderError: the key's file is missing.
    """
    path = federation.coordinator / "signing.key"
    if not path.exists():
        raise RunFolderError(f"the coordinator's key is missing: {_REMEDIES['coordinator_key'][1]} ({path})")


@cache
def code_in_use() -> Mapping[str, str]:
    """Return the installed version, and for each package the SHA-256 over its source files' names and contents."""
    return {
        "version": installed_version("aegis-fl"),
        **{name: sha256_hex(canonical_json(dict(_sources(name)))) for name in _PACKAGES},
    }


def _sources(package: str) -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec(package)
    for root in map(Path, (spec.submodule_search_locations or ()) if spec is not None else ()):
        for path in sorted(root.rglob("*.py")):
            yield path.relative_to(root).as_posix(), sha256_hex(path.read_bytes())


def _differing_values(recorded: object, now: object) -> tuple[str, str]:
    """Return both values as text; for two tables, only the entries that differ."""
    if not isinstance(recorded, Mapping) or not isinstance(now, Mapping):
        return _shortened(recorded), _shortened(now)
    differing = sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))
    words = [
        ", ".join(f"{name} {_shortened(each[name])}" if name in each else f"no {name}" for name in differing)
        for each in (recorded, now)
    ]
    return words[0], words[1]


def _shortened(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:16]}…" if len(text) == 64 and text.isalnum() else f"{text:.200}"
