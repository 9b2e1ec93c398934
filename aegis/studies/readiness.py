"""Refuses a study whose own sites cannot take part as they stand, before a run folder exists.

Sites on other machines are not looked at: the run asks each one, and each answers for itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from aegis.errors import InvalidStudy
from aegis.federation import FederationFolder
from aegis.runs import RuntimeName
from coreason_enclave.errors import LedgerError
from coreason_enclave.ledger import LineageRegistration, SqliteLedger
from coreason_enclave.policy import LineagePolicy, load_site_config

_CAPS = ("epsilon", "delta", "job_epsilon", "job_delta")
_TERMS = ("unit", "nominal_units", "public")


def require_local_sites(federation: FederationFolder, runtime: RuntimeName) -> None:
    """Refuse sites on this machine that are missing, unreadable, or registered otherwise than their ledgers say.

    Raises:
        InvalidStudy: a site's folder is missing, or its ``site.toml`` contradicts its ledger.
        ConfigurationError, LedgerError: a site's ``site.toml`` or ledger cannot be read.
    """
    folders = {folder.name: folder for folder in federation.site_folders()}
    config = federation.config()
    none_is_left = config.attester == "simulated" and not folders
    if runtime is RuntimeName.IN_PROCESS or none_is_left:
        for site in sorted(config.public_keys.keys() - config.revoked - folders.keys()):
            raise InvalidStudy(
                f"{federation.path / 'sites' / site / 'site.toml'} is missing: put the folder of the site {site!r} "
                "back, or make a new study with `aegis init`"
            )
    for site in sorted(folders.keys() & config.public_keys.keys()):
        _require_registered(folders[site])


def _require_registered(folder: Path) -> None:
    path = folder / "site.toml"
    config = load_site_config(path)
    if not (folder / config.ledger).is_file():  # a site that no run has opened yet
        return
    ledger = SqliteLedger(folder / config.ledger, must_exist=True)
    try:
        for entry in config.lineages:
            try:
                known = ledger.registration(entry.lineage)
            except LedgerError:
                continue  # a new lineage: opening the site registers it
            _require_same(path, entry, known)
    finally:
        ledger.close()


def _require_same(path: Path, entry: LineagePolicy, known: LineageRegistration) -> None:
    for name in (*_CAPS, *_TERMS):
        before = json.dumps(getattr(known.caps if name in _CAPS else known, name))
        now = json.dumps(getattr(entry, name))
        if now != before:
            raise_cap = "raise caps with `coreason-enclave policy raise-cap`, or " if name in _CAPS else ""
            raise InvalidStudy(
                f"{path}: lineage {entry.lineage!r} says {name} = {now}, its ledger {before}: write {before} back; "
                f"{raise_cap}register other rows as a lineage of another name"
            )
