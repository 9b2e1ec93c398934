"""What the real file system gives a collector."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coreason_enclave.hardware.devices import MAX_ANSWER_BYTES, HostDevices


def test_a_file_is_read_whole_and_written_in_place(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/report").write_bytes(b"old")
    devices = HostDevices(tmp_path)

    devices.write("dev/report", b"new")

    assert devices.read("dev/report") == b"new"
    assert devices.exists("dev/report")
    assert devices.names("dev") == ["report"]


def test_writing_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HostDevices(tmp_path).write("inblob", b"data")

    assert list(tmp_path.iterdir()) == []


def test_a_device_that_takes_a_part_only_has_failed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "narrow")
    reader = os.open(tmp_path / "narrow", os.O_RDWR | os.O_NONBLOCK)
    taken = os.write(reader, bytes(1 << 20))  # the pipe is full now
    os.read(reader, 4096)
    devices = HostDevices(tmp_path)
    nonblocking = os.O_NONBLOCK

    with pytest.MonkeyPatch.context() as patch:
        opened = os.open
        patch.setattr(os, "open", lambda path, flags, *mode: opened(path, flags | nonblocking, *mode))
        with pytest.raises(OSError, match=r"accepted .* of 8192 bytes") as error:
            devices.write("narrow", bytes(8192))

    os.close(reader)
    assert taken
    assert error.value.errno == errno.EIO


def test_an_answer_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(bytes(MAX_ANSWER_BYTES))
    assert len(HostDevices(tmp_path).read("whole")) == MAX_ANSWER_BYTES

    (tmp_path / "longer").write_bytes(bytes(MAX_ANSWER_BYTES + 1))
    for devices, path in ((HostDevices(tmp_path), "longer"), (HostDevices(), "dev/zero")):
        with pytest.raises(OSError, match="longer than") as error:
            devices.read(path)
        assert error.value.errno == errno.EFBIG


def test_folders_are_made_once_and_removed(tmp_path: Path) -> None:
    devices = HostDevices(tmp_path)
    devices.mkdir("entry")
    with pytest.raises(FileExistsError):
        devices.mkdir("entry")
    devices.rmdir("entry")

    assert not devices.exists("entry")
    with pytest.raises(FileNotFoundError):
        devices.names("entry")


def test_no_descriptor_is_left_open_by_a_failure(tmp_path: Path) -> None:
    before = HostDevices().names("proc/self/fd")
    for path in ("dev/zero", "dev/full"):
        with pytest.raises(OSError, match=r"longer|space"):
            HostDevices().read(path) if path == "dev/zero" else HostDevices().write(path, b"x")

    assert HostDevices().names("proc/self/fd") == before
