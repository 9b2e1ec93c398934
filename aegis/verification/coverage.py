"""Checks every file in a run folder against the signatures that cover the folder.

Three signatures can cover a file:

- the manifest, which the coordinator signs at the end of the run;
- its own signature, for the manifest and the log's checkpoint;
- a remote site's signature, for a site's ledger added to the folder after the run.

The report lists the few files omitted by :mod:`aegis.runs.manifest` as not covered. Every other uncovered file fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aegis.runs import MANIFEST, SIGNATURE, files_of, is_left_out, read_manifest
from aegis.verification.findings import Answers, Reference, fails, holds, stays_open
from aegis.verification.records import Records
from coreason_enclave.errors import EnclaveError
from coreason_enclave.ledger import open_export

_SHOWN = 5


def check_manifest(records: Records, reference: Reference) -> Answers:
    """Check the manifest's signature, all listed files, and the cover of every other file in the folder."""
    listed, by_name = _listed(records, reference), coverage(records, reference)
    missing = sorted(name for name in listed if name not in by_name)
    changed = sorted(
        name for name in listed if name in by_name and not (records.folder / name).is_symlink() and not by_name[name]
    )
    added = sorted(name for name, covered in by_name.items() if not covered and name not in listed)
    for problem, names in (("missing", missing), ("not as signed", changed)):
        if names:
            yield fails(f"{problem}: {_shortened(names)}")
    foreign = [name for name in added if not is_left_out(name)]
    if foreign:
        yield fails(f"no signature covers these files, which were added after the run: {_shortened(foreign)}")
    if not missing and not changed and not foreign:
        yield holds(f"{sum(by_name.values())} files are unchanged since they were signed")
    released = records.trail.released
    if released is not None and released.outcome != records.digest("outcome.json"):
        yield fails("outcome.json is not the outcome that the log's last line names")
    for folder, names in _by_folder([name for name in added if is_left_out(name)]).items():
        yield stays_open(f"not covered: {folder} ({len(names)} files of other programs; no finding depends on them)")


def coverage(records: Records, reference: Reference) -> Mapping[str, bool]:
    """Return, for every file of the folder by path, True if a signature covers the present bytes."""
    listed = _listed(records, reference)
    covered = {name: _is_covered(records, listed, name) for name in files_of(records.folder)}
    return {**covered, MANIFEST: True, SIGNATURE: True}


def _listed(records: Records, reference: Reference) -> Mapping[str, str]:
    key = reference.coordinator_key or records.config.coordinator_key
    return read_manifest(records.data(MANIFEST), records.data(SIGNATURE), records.config.job_digest, key)


def _is_covered(records: Records, listed: Mapping[str, str], name: str) -> bool:
    path = records.folder / name
    if path.is_symlink() or not path.is_file():
        return False
    if name in listed:
        return records.digest(name) == listed[name]
    return name in set(_signed_later(records))


def _signed_later(records: Records) -> Iterator[str]:
    """Yield the paths of the ledgers sent by remote sites after the run, and of the sites' signatures over them."""
    for site, key in records.config.participants.items():
        export, signed = f"ledger/{site}.json", f"ledger/{site}.dsse"
        if not records.is_remote(site) or not records.exists(export) or not records.exists(signed):
            continue
        try:
            open_export(records.data(signed), records.data(export), site, key)
        except EnclaveError:
            continue
        yield from (export, signed)


def _by_folder(names: list[str]) -> Mapping[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for name in names:
        head, _, below = name.partition("/")
        folders.setdefault(f"{head}/" if below else name, []).append(name)
    return folders


def _shortened(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
