"""Handles to datasets inside the data root, which no dataset id and no link can leave.

A dataset id arrives from outside. The handle:

- matches the id against a closed alphabet before any file access;
- walks the path name by name through directory descriptors (``openat`` with ``O_NOFOLLOW``), so no link is ever
  followed, no matter who plants it and when;
- reads bytes through the same descriptor whose type, size and link count it checked.

The root itself comes from the site's own configuration and may be a link; every path below must be free of links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter

from coreason_enclave.errors import ConfigurationError, DatasetRejected, Reason
from coreason_enclave.schemas import SafeId, SafePath, explained

MAX_FILE_BYTES = 1 << 32
"""The largest readable file: memory holds a dataset's arrays, and a file of tensors or arrays whole."""

CHUNK_BYTES = 1 << 20

_DATASET_ID: TypeAdapter[str] = TypeAdapter(SafePath)
_FILE_NAME: TypeAdapter[str] = TypeAdapter(SafeId)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a FIFO or a terminal must neither block nor take over the terminal: the type check follows the opening.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class DataRoot:
    """The single folder above all of a site's datasets.

    Raises:
        ConfigurationError: the root is not a folder, or is the root of the file system.
    """

    def __init__(self, root: Path) -> None:
        try:
            self._root = root.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigurationError(f"data root {root} cannot be used: {error}") from error
        if not self._root.is_dir() or self._root == Path(self._root.anchor):
            raise ConfigurationError(
                f"data root {root} must be a separate folder: name a folder that holds only datasets"
            )

    def resolve(self, dataset_id: str) -> Path:
        """Return the dataset's folder, for messages; to read files, hold the folder open with :meth:`folder`."""
        with self.folder(dataset_id) as folder:
            return folder.path

    @contextmanager
    def folder(self, dataset_id: str) -> Iterator[DatasetFolder]:
        """Hold the dataset's folder open.

        Raises:
            DatasetRejected: the id is malformed or a path component is not a plain folder (``dataset_path``), or no
                such dataset exists (``dataset_unknown``).
        """
        names = _names(dataset_id)
        descriptor = _open_folder(str(self._root), None, dataset_id)
        try:
            for name in names:
                inner = _open_folder(name, descriptor, dataset_id)
                os.close(descriptor)
                descriptor = inner
            yield DatasetFolder(dataset_id, self._root.joinpath(*names), descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class DatasetFolder:
    """An open dataset folder; valid inside :meth:`DataRoot.folder`. ``path`` is for messages only."""

    dataset_id: str
    path: Path
    descriptor: int

    def read(self, name: str, *, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return the bytes of one regular file of at most ``limit`` bytes; raise :class:`DatasetRejected` otherwise."""
        with self.open(name, limit=limit) as file:
            return file.read_whole()

    @contextmanager
    def open(self, name: str, *, limit: int = MAX_FILE_BYTES) -> Iterator[OpenFile]:
        """Hold one regular file of at most ``limit`` bytes open, for reading in parts.

        Raises:
            DatasetRejected: not a regular file with one name, too large, or (at the end) changed since the beginning.
        """
        _checked(_FILE_NAME, name, "file name")
        where = f"{self.dataset_id}/{name}"
        try:
            before = _regular(os.stat(name, dir_fd=self.descriptor, follow_symlinks=False), where)
            descriptor = os.open(name, _FILE, dir_fd=self.descriptor)
        except OSError as error:
            raise _refusal(where, error) from error
        with os.fdopen(descriptor, "rb") as file:
            opened = _regular(os.fstat(descriptor), where)
            if (opened.st_dev, opened.st_ino) != (before.st_dev, before.st_ino):
                raise _changed(where)
            yield OpenFile(file, where, opened.st_size, limit)
            if _state(os.fstat(descriptor)) != _state(opened):
                raise _changed(where)

    @contextmanager
    def inner(self, path: str) -> Iterator[DatasetFolder]:
        """Hold a folder inside this one open; ``path`` joins plain names by ``/``.

        Raises:
            DatasetRejected: as :meth:`DataRoot.folder`.
        """
        names, descriptor = _checked(_DATASET_ID, path, "folder name").split("/"), os.dup(self.descriptor)
        where = f"{self.dataset_id}/{path}"
        try:
            for name in names:
                deeper = _open_folder(name, descriptor, where)
                os.close(descriptor)
                descriptor = deeper
            yield DatasetFolder(where, self.path.joinpath(*names), descriptor)
        finally:
            os.close(descriptor)

    def require_file(self, name: str) -> None:
        """Raise :class:`DatasetRejected` unless a regular file of this name exists; do not read its content."""
        _checked(_FILE_NAME, name, "file name")
        where = f"{self.dataset_id}/{name}"
        try:
            _regular(os.stat(name, dir_fd=self.descriptor, follow_symlinks=False), where)
        except OSError as error:
            raise _refusal(where, error) from error


@dataclass(frozen=True)
class OpenFile:
    """A checked file; valid inside :meth:`DatasetFolder.open`. Each failure is a :class:`DatasetRejected`.

    Attributes:
        file: the open descriptor's stream.
        where: the file's place below the data root, for messages.
        size: bytes, when the file was opened.
        limit: the largest permitted size, in bytes.
    """

    file: BinaryIO
    where: str
    size: int
    limit: int

    def read_whole(self) -> bytes:
        """Return all bytes."""
        data = self.read(self.limit + 1)
        if len(data) > self.limit:
            raise self.too_large()
        return data

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; fewer only at the end."""
        try:
            return self.file.read(size)
        except OSError as error:
            raise DatasetRejected(f"{self.where} cannot be read ({error.strerror}): check the disk") from error

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes in parts of :data:`CHUNK_BYTES`."""
        if self.size > self.limit:
            raise self.too_large()
        while chunk := self.read(CHUNK_BYTES):
            yield chunk

    def too_large(self) -> DatasetRejected:
        """Return the refusal of a file above the limit."""
        return DatasetRejected(f"{self.where} is larger than {self.limit} bytes: split the dataset")

    def changed(self) -> DatasetRejected:
        """Return the refusal of a file that another program writes to."""
        return _changed(self.where)


def _names(dataset_id: str) -> list[str]:
    return _checked(_DATASET_ID, dataset_id, "dataset id").split("/")


def _checked(adapter: TypeAdapter[str], value: object, what: str) -> str:
    if type(value) is not str:  # pydantic would decode bytes, and a subclass may lie about its content
        raise DatasetRejected(f"a {what} is text, got {type(value).__name__}", reason=Reason.DATASET_PATH)
    with explained(lambda why: DatasetRejected(f"not a {what}: {why}", reason=Reason.DATASET_PATH)):
        return adapter.validate_python(value)


def _open_folder(name: str, parent: int | None, dataset_id: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        raise _refusal(dataset_id, error) from error


def _regular(status: os.stat_result, where: str) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise DatasetRejected(
            f"{where} is not a regular file: store a copy of the data there", reason=Reason.DATASET_PATH
        )
    if status.st_nlink != 1:
        # A hard link is a second name for a file that may live anywhere, such as the ledger or a key.
        raise DatasetRejected(
            f"{where} has {status.st_nlink} names (is hard-linked): store a copy of the data there",
            reason=Reason.DATASET_PATH,
        )
    return status


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _changed(where: str) -> DatasetRejected:
    return DatasetRejected(f"{where} changed while it was read: try again when nothing writes to it")


def _refusal(where: str, error: OSError) -> DatasetRejected:
    if isinstance(error, FileNotFoundError):
        return DatasetRejected(f"{where} does not exist below the data root", reason=Reason.DATASET_UNKNOWN)
    return DatasetRejected(
        f"{where} cannot be opened ({error.strerror}): store a dataset in plain folders, without links",
        reason=Reason.DATASET_PATH,
    )
