"""Device trees that behave as the kernel's and Gramine's do, with keys of our own behind them.

The rules of :class:`TsmTree` are those of ``drivers/virt/coco``: the report is made when ``outblob`` is read, from what
was written last; every accepted write raises ``generation``; a write that is lost at closing time raises nothing.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from coreason_enclave.hardware.tsm import REPORTS

Sign = Callable[[bytes, int], bytes]
"""The report over these bytes at this privilege level."""


def failing(number: int, path: str = "") -> OSError:
    """What the system raises for this error."""
    return OSError(number, os.strerror(number), f"/{path}")


@dataclass
class Entry:
    """One report's folder."""

    inblob: bytes = b""
    privlevel: int = 0
    generation: int = 0
    made_at: int | None = None
    outblob: bytes = b""

    def write(self, data: bytes) -> None:
        """What anybody with the rights to it can do."""
        self.inblob = data
        self.generation += 1


@dataclass
class TsmTree:
    """configfs-tsm.

    Attributes:
        auxblob: None where the provider has none. floor: None where it knows no privilege levels.
        lost: this many writes of ``inblob`` are lost without an error.
        after: called with the entry once an attribute was used, by ``"read outblob"`` and the like.
        errors: raised, one after the other, before an operation like ``"mkdir"`` or ``"write inblob"``.
    """

    provider: str
    sign: Sign
    auxblob: bytes | None = None
    floor: str | None = None
    lost: int = 0
    after: dict[str, Callable[[Entry], None]] = field(default_factory=dict)
    errors: dict[str, list[OSError]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def exists(self, path: str) -> bool:
        if path in (REPORTS, *self.others):
            return True
        entry, attribute = os.path.split(path)
        hidden = {"auxblob": self.auxblob is None, "privlevel_floor": self.floor is None}
        return entry in self.entries and not hidden.get(attribute, False)

    def names(self, path: str) -> list[str]:
        with self._operation("names"):
            assert path == REPORTS
            return [entry.rpartition("/")[2] for entry in self.entries]

    def mkdir(self, path: str) -> None:
        with self._operation("mkdir"):
            if path in self.entries:
                raise failing(errno.EEXIST, path)
            self.entries[path] = Entry()
            self.made.append(path)

    def rmdir(self, path: str) -> None:
        with self._operation("rmdir"):
            if path not in self.entries:
                raise failing(errno.ENOENT, path)
            del self.entries[path]

    def read(self, path: str) -> bytes:
        name, _, attribute = path.rpartition("/")
        with self._operation(f"read {attribute}", name):
            if not self.exists(path):
                raise failing(errno.ENOENT, path)
            return self._show(self.entries[name], attribute)

    def write(self, path: str, data: bytes) -> None:
        name, _, attribute = path.rpartition("/")
        with self._operation(f"write {attribute}", name):
            entry = self.entries[name]
            if attribute == "privlevel":
                if self.floor is None or not int(self.floor) <= int(data) <= 3:
                    raise failing(errno.EINVAL, path)
                entry.privlevel = int(data)
                entry.generation += 1
            elif self.lost:
                self.lost -= 1
            else:
                assert attribute == "inblob"
                entry.write(data)

    def _show(self, entry: Entry, attribute: str) -> bytes:
        if attribute in ("outblob", "auxblob"):
            return self._report(entry) if attribute == "outblob" else self._certificates(entry)
        texts = {"provider": self.provider, "generation": str(entry.generation), "privlevel_floor": self.floor}
        return f"{texts[attribute]}\n".encode()

    def _report(self, entry: Entry) -> bytes:
        if not entry.inblob:
            raise failing(errno.EINVAL)
        if entry.made_at != entry.generation:
            entry.outblob, entry.made_at = self.sign(entry.inblob, entry.privlevel), entry.generation
        return entry.outblob

    def _certificates(self, entry: Entry) -> bytes:
        self._report(entry)
        assert self.auxblob is not None
        return self.auxblob

    @contextmanager
    def _operation(self, name: str, entry: str = "") -> Iterator[None]:
        with self.lock:
            if waiting := self.errors.get(name):
                raise waiting.pop(0)
            yield
            if name in self.after:
                self.after[name](self.entries[entry])


@dataclass
class GramineTree:
    """``/dev/attestation`` of one enclave; ``between`` is called after report data was written."""

    sign: Sign
    attestation_type: str = "dcap"
    errors: dict[str, list[OSError]] = field(default_factory=dict)
    between: Callable[[GramineTree], None] = lambda tree: None
    user_report_data: bytes = bytes(64)

    def exists(self, path: str) -> bool:
        return path.startswith("dev/attestation/")

    def read(self, path: str) -> bytes:
        self._fail_if_told(f"read {path.rpartition('/')[2]}")
        if path == "dev/attestation/attestation_type":
            return self.attestation_type.encode()
        assert path == "dev/attestation/quote"
        return self.sign(self.user_report_data, 0)

    def write(self, path: str, data: bytes) -> None:
        assert path == "dev/attestation/user_report_data"
        self._fail_if_told("write user_report_data")
        self.user_report_data = data
        self.between(self)

    def names(self, path: str) -> list[str]:
        raise failing(errno.ENOTDIR, path)

    def mkdir(self, path: str) -> None:
        raise failing(errno.EPERM, path)

    def rmdir(self, path: str) -> None:
        raise failing(errno.EPERM, path)

    def _fail_if_told(self, name: str) -> None:
        if waiting := self.errors.get(name):
            raise waiting.pop(0)


class NoDevices:
    """A host without any."""

    def exists(self, path: str) -> bool:
        return False

    def names(self, path: str) -> list[str]:
        raise failing(errno.ENOENT, path)

    def mkdir(self, path: str) -> None:
        raise failing(errno.ENOENT, path)

    def rmdir(self, path: str) -> None:
        raise failing(errno.ENOENT, path)

    def read(self, path: str) -> bytes:
        raise failing(errno.ENOENT, path)

    def write(self, path: str, data: bytes) -> None:
        raise failing(errno.ENOENT, path)
