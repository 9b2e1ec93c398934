"""Exports a finished run as one file for an auditor: its records and public keys, without private data.

A bundle is an uncompressed zip archive with sorted names and one fixed date: the same run gives the same bytes, and the
unpacked files never exceed the archive's size. The archive holds the manifest and every file that the manifest names.
Runtime notes, which may hold tokens or keys, stay out. The export refuses a manifest that names

- a file that only its owner may read (except the log, which has this mode and belongs to the audit)
- a link, or a path without a file
- a file in a folder ``keys``, ``coordinator``, ``federation`` or ``nvflare``

The import refuses an archive that

- uses compression or encryption, or unpacks to more bytes than its own size
- names a path outside the run folder, a path twice, or a link
"""

from __future__ import annotations

import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydantic import ValidationError

from aegis.errors import RunFolderError
from aegis.runs.folder import RunFolder
from aegis.runs.manifest import MANIFEST, SIGNATURE, FileList
from coreason_enclave.command_line import one_line
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnclaveError
from coreason_enclave.system import create_file

_LOG = "audit.jsonl"
_FOLDERS = frozenset({"keys", "coordinator", "federation", "nvflare"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,15}")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip archive can store
_MODE = (stat.S_IFREG | 0o644) << 16
_MAX_FILES, _LARGEST = 1_000_000, 1 << 30


def exported_names(run: Path) -> list[str]:
    """Return the sorted names of the files of a finished run that belong in its bundle.

    Raises:
        RunFolderError: the manifest is missing, or names a missing or private file.
    """
    try:
        listed = FileList.model_validate(parse_json((run / MANIFEST).read_bytes(), limit=_LARGEST)).files
    except (OSError, EnclaveError, ValidationError) as error:
        raise RunFolderError(f"{run} has no readable {MANIFEST}, which lists the files: {one_line(error)}") from error
    names = sorted({*listed, MANIFEST, SIGNATURE})
    for name in names:
        _require_public(run, name)
    return names


def write_bundle(run: Path, out: Path) -> list[str]:
    """Write the bundle of a finished run; return the names in the bundle.

    Raises:
        RunFolderError: ``run`` holds no finished run, a file cannot be read, or ``out`` exists.
    """
    folder = RunFolder(run)
    if not folder.is_started:
        raise RunFolderError(f"{run} is not a run folder: it has no config.json")
    if not folder.is_finished:
        raise RunFolderError(f"the run in {run} has not finished: repeat the command that started the run")
    names = exported_names(run)
    try:
        create_file(out, _archive(run, names))
    except FileExistsError as error:
        raise RunFolderError(f"{out} exists: choose another name") from error
    except OSError as error:
        raise RunFolderError(f"{error.filename or out}: {error.strerror}: nothing was written") from error
    return names


@contextmanager
def opened_run(path: Path) -> Iterator[Path]:
    """Yield a run's folder: ``path`` itself or, for a bundle, a temporary folder with its files while the body runs.

    Raises:
        RunFolderError: ``path`` is a file and no bundle.
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="aegis-bundle-") as folder:
        _unpack(path, Path(folder))
        yield Path(folder)


def _require_public(run: Path, name: str) -> None:
    path = run / name
    if _NAME.fullmatch(name) is None or _FOLDERS.intersection(name.split("/")[:-1]):
        raise RunFolderError(f"{path} is not a record of the run; nothing was exported")
    status = path.lstat() if path.exists() else None
    if status is None or not stat.S_ISREG(status.st_mode) or any(part.is_symlink() for part in _above(run, path)):
        raise RunFolderError(f"{path} is missing, a link, or not a regular file; nothing was exported")
    if status.st_mode & 0o077 == 0 and path.name != _LOG:
        raise RunFolderError(f"only the owner may read {path}; nothing was exported: run chmod a+r on files to publish")


def _above(run: Path, path: Path) -> list[Path]:
    return [each for each in path.parents if each != run and run in each.parents]


def _archive(run: Path, names: list[str]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr, entry.create_system = _MODE, 3
            archive.writestr(entry, (run / name).read_bytes())
    return buffer.getvalue()


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _require_harmless(path, entries)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    while data := source.read(1 << 20):
                        file.write(data)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise RunFolderError(f"{path} is not a run bundle: {error}") from error


def _require_harmless(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Check every archive entry:

    - the name is a plain relative path and occurs once;
    - the entry is an uncompressed, unencrypted regular file;
    - all entries together are no larger than the archive.
    """
    names = [entry.filename for entry in entries]
    _require(path, len(names) <= _MAX_FILES, f"the archive holds more than {_MAX_FILES} files")
    _require(path, len({name.casefold() for name in names}) == len(names), "the archive names a file twice")
    for entry in entries:
        quoted, kind = f"{entry.filename[:80]!r}", stat.S_IFMT(entry.external_attr >> 16)
        _require(path, _NAME.fullmatch(entry.filename) is not None, f"{quoted} is not a path inside a run folder")
        _require(path, kind in (0, stat.S_IFREG), f"{quoted} is a link, or not a regular file")
        stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        _require(path, stored and not entry.flag_bits & 1, f"{quoted} is compressed or encrypted")
    size = sum(entry.file_size for entry in entries)
    _require(path, size <= path.stat().st_size, f"the files would unpack to {size} bytes, more than the archive itself")


def _require(path: Path, condition: bool, why: str) -> None:
    if not condition:
        raise RunFolderError(f"{path} is not a run bundle: {why}")
