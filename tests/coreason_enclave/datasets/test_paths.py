from __future__ import annotations

import io
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreason_enclave.datasets.paths import DataRoot
from coreason_enclave.errors import ConfigurationError, DatasetRejected, Reason

ESCAPES: dict[str, object] = {
    "the parent folder": "..",
    "two folders up": "../../etc",
    "up from inside": "clinic/../../etc/passwd",
    "up and back in": "clinic/../clinic",
    "the folder itself": ".",
    "the folder itself inside": "clinic/./visits",
    "an absolute path": "/etc/passwd",
    "a double slash": "clinic//visits",
    "a leading double slash": "//etc/passwd",
    "a trailing slash": "clinic/",
    "nothing": "",
    "a space": " ",
    "a NUL": "clinic\0",
    "a NUL before a suffix": "clinic/visits\0.csv",
    "a line feed": "clinic\n",
    "a backslash": "clinic\\visits",
    "a backslash climb": "..\\..\\etc",
    "a drive letter": "C:/data",
    "a UNC path": "\\\\server\\share",
    "a home folder": "~/data",
    "a variable": "$HOME",
    "a URL": "file:///etc/passwd",
    "percent encoding": "%2e%2e/etc",
    "fullwidth dots": "．．/etc",
    "one-dot leaders": "․․/etc",
    "a two-dot leader": "‥/etc",
    "a fullwidth slash": "clinic／visits",
    "a fraction slash": "clinic⁄visits",
    "a division slash": "clinic∕visits",
    "a fullwidth backslash": "clinic＼visits",
    "a combining accent": "clinic/visité",
    "a composed accent": "clinic/visité",
    "a right-to-left override": "clinic/\u202evsc.swor",
    "a zero-width joiner": "cli\u200dnic",
    "a byte order mark": "\ufeffclinic",
    "a Cyrillic look-alike": "сlinic",
    "a lone surrogate": "clinic\udcff",
    "an overlong UTF-8 dot smuggled through surrogates": "\udcc0\udcae\udcc0\udcae/etc",
    "a hidden file": ".ssh",
    "an option": "-rf",
    "a name too long": "a" * 129,
    "a path too deep": "/".join("a" * 9),
    "an overlong path": "a/" * 5000 + "a",
    "bytes": b"clinic",
    "a path object": Path("clinic"),
    "a number": 7,
    "None": None,
    "a list": ["clinic"],
}


@pytest.mark.parametrize("attempt", ESCAPES.values(), ids=ESCAPES.keys())
def test_an_id_that_is_not_plain_names_is_refused_before_the_file_system_is_touched(
    data_root: Path, attempt: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_root / "clinic").mkdir()
    root = DataRoot(data_root)
    monkeypatch.setattr(os, "open", lambda *_args, **_options: pytest.fail("the file system was touched"))
    with pytest.raises(DatasetRejected) as refused:
        root.resolve(attempt)  # type: ignore[arg-type]
    assert refused.value.reason is Reason.DATASET_PATH


class _Liar(str):
    """Shows one text to a pattern and another to whoever joins it."""

    def split(self, *_args: object) -> list[str]:  # type: ignore[override]
        return ["..", ".."]


def test_a_string_that_lies_about_itself_is_refused(data_root: Path) -> None:
    with pytest.raises(DatasetRejected, match="text"):
        DataRoot(data_root).resolve(_Liar("clinic"))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="./\\a\0-~%．／", max_size=12))
def test_whatever_the_id_what_is_resolved_lies_below_the_root(data_root: Path, dataset_id: str) -> None:
    (data_root / "a").mkdir(exist_ok=True)
    try:
        found = DataRoot(data_root).resolve(dataset_id)
    except DatasetRejected:
        return
    assert data_root.resolve() in found.resolve(strict=True).parents


def test_a_dataset_in_nested_folders_is_found(data_root: Path) -> None:
    (data_root / "secure" / "data" / "liver_scans_v1").mkdir(parents=True)
    assert DataRoot(data_root).resolve("secure/data/liver_scans_v1") == data_root / "secure/data/liver_scans_v1"


def test_an_unknown_dataset_is_refused_as_unknown(data_root: Path) -> None:
    with pytest.raises(DatasetRejected) as refused:
        DataRoot(data_root).resolve("clinic/visits")
    assert refused.value.reason is Reason.DATASET_UNKNOWN


@pytest.mark.parametrize("linked", ["clinic", "clinic/visits"])
@pytest.mark.parametrize("inside", [True, False], ids=["within the root", "out of the root"])
def test_a_linked_folder_is_refused_wherever_it_stands_and_wherever_it_leads(
    data_root: Path, tmp_path: Path, linked: str, inside: bool
) -> None:
    target = (data_root if inside else tmp_path) / "elsewhere"
    (target / "visits").mkdir(parents=True)
    link = data_root / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target, target_is_directory=True)
    with pytest.raises(DatasetRejected) as refused:
        DataRoot(data_root).resolve("clinic/visits")
    assert refused.value.reason is Reason.DATASET_PATH


def test_a_file_in_place_of_a_folder_is_refused(data_root: Path) -> None:
    (data_root / "clinic").write_text("a file")
    with pytest.raises(DatasetRejected) as refused:
        DataRoot(data_root).resolve("clinic")
    assert refused.value.reason is Reason.DATASET_PATH


def test_the_root_itself_may_be_reached_through_a_link(data_root: Path, tmp_path: Path) -> None:
    (data_root / "clinic").mkdir()
    (tmp_path / "alias").symlink_to(data_root, target_is_directory=True)
    assert DataRoot(tmp_path / "alias").resolve("clinic") == data_root / "clinic"


@pytest.mark.parametrize("root", ["absent", "file", "/"])
def test_a_root_that_is_no_folder_of_its_own_is_a_configuration_error(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError):
        DataRoot(tmp_path / root)


def _read(data_root: Path, name: str = "rows.csv", limit: int = 100) -> bytes:
    with DataRoot(data_root).folder("clinic") as folder:
        return folder.read(name, limit=limit)


@pytest.fixture
def clinic(data_root: Path) -> Path:
    (data_root / "clinic").mkdir()
    return data_root / "clinic"


def test_a_regular_file_is_read_whole(data_root: Path, clinic: Path) -> None:
    (clinic / "rows.csv").write_bytes(b"x" * 100)
    assert _read(data_root) == b"x" * 100


def test_a_file_above_the_size_cap_is_refused(data_root: Path, clinic: Path) -> None:
    (clinic / "rows.csv").write_bytes(b"x" * 101)
    with pytest.raises(DatasetRejected, match="larger than 100 bytes"):
        _read(data_root)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/b", "", "rows.csv\0", "rows．csv"])
def test_a_file_name_that_is_a_path_is_refused(data_root: Path, clinic: Path, name: str) -> None:
    (data_root / "secret").write_text("s")
    with pytest.raises(DatasetRejected) as refused:
        _read(data_root, name)
    assert refused.value.reason is Reason.DATASET_PATH


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "folder", "socket", "device link"])
def test_only_a_regular_file_with_one_name_is_read(data_root: Path, clinic: Path, tmp_path: Path, kind: str) -> None:
    secret, planted = tmp_path / "secret", clinic / "rows.csv"
    secret.write_text("secret")
    if kind == "symlink":
        planted.symlink_to(secret)
    elif kind == "dangling":
        planted.symlink_to(tmp_path / "absent")
    elif kind == "device link":
        planted.symlink_to("/dev/zero")
    elif kind == "hard link":
        os.link(secret, planted)
    elif kind == "fifo":
        os.mkfifo(planted)
    elif kind == "folder":
        planted.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(planted))
    with pytest.raises(DatasetRejected) as refused:
        _read(data_root)
    assert refused.value.reason is Reason.DATASET_PATH


def test_a_device_is_refused_by_its_type_before_it_is_opened(
    data_root: Path, clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clinic / "rows.csv").write_bytes(b"x")
    real = os.stat

    def as_device(path: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        status = real(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        mode = stat.S_IFCHR | 0o600 if path == "rows.csv" else status.st_mode
        return os.stat_result((mode, *status[1:]))

    with DataRoot(data_root).folder("clinic") as folder:
        monkeypatch.setattr(os, "stat", as_device)
        monkeypatch.setattr(os, "open", lambda *_args, **_options: pytest.fail("the device was opened"))
        with pytest.raises(DatasetRejected, match="regular file"):
            folder.read("rows.csv")


def test_a_file_swapped_for_a_link_between_look_and_open_is_not_followed(
    data_root: Path, clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    (clinic / "rows.csv").write_text("rows")
    real = os.open

    def swap_then_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "rows.csv":
            (clinic / "rows.csv").unlink()
            (clinic / "rows.csv").symlink_to(tmp_path / "secret")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_then_open)
    with pytest.raises(DatasetRejected, match="without links"):
        _read(data_root)


def test_a_file_swapped_for_another_between_look_and_open_is_refused(
    data_root: Path, clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clinic / "rows.csv").write_text("rows")
    (clinic / "other").write_text("other")
    real = os.open

    def swap_then_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "rows.csv":
            (clinic / "other").replace(clinic / "rows.csv")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_then_open)
    with pytest.raises(DatasetRejected, match="changed"):
        _read(data_root)


def test_a_folder_swapped_for_a_link_while_it_is_held_open_changes_nothing(
    data_root: Path, clinic: Path, tmp_path: Path
) -> None:
    (clinic / "rows.csv").write_bytes(b"rows")
    (tmp_path / "rows.csv").write_bytes(b"secret")
    with DataRoot(data_root).folder("clinic") as folder:
        clinic.rename(data_root / "moved")
        clinic.symlink_to(tmp_path, target_is_directory=True)
        assert folder.read("rows.csv") == b"rows"


def test_a_disk_that_fails_is_a_typed_refusal(data_root: Path, clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    (clinic / "rows.csv").write_bytes(b"rows")
    with DataRoot(data_root).folder("clinic") as folder:
        monkeypatch.setattr(os, "fdopen", lambda _descriptor, _mode: Failing())
        with pytest.raises(DatasetRejected, match="Input/output error"):
            folder.read("rows.csv")


def test_no_descriptor_stays_open_after_success_or_refusal(data_root: Path, clinic: Path) -> None:
    (clinic / "rows.csv").write_bytes(b"rows")
    (data_root / "link").symlink_to(clinic)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a listing of descriptors, not of files
    _read(data_root)
    for attempt in ("link", "clinic/absent", "absent", ".."):
        with pytest.raises(DatasetRejected):
            DataRoot(data_root).resolve(attempt)
    with pytest.raises(DatasetRejected):
        _read(data_root, "absent")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_fifo_swapped_in_without_a_writer_does_not_block_the_agent(
    data_root: Path, clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clinic / "rows.csv").write_text("rows")
    real, refusals = os.open, []

    def swap_then_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "rows.csv":
            (clinic / "rows.csv").unlink()
            os.mkfifo(clinic / "rows.csv")
        return real(path, flags, mode, dir_fd=dir_fd)

    def attempt() -> None:
        try:
            _read(data_root)
        except DatasetRejected as refused:
            refusals.append(refused.reason)

    monkeypatch.setattr(os, "open", swap_then_open)
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout=5)
    assert refusals == [Reason.DATASET_PATH]


@pytest.mark.parametrize("write", [b"rows and more", b"ROWS"], ids=["another length", "the same length"])
def test_a_file_that_is_written_while_it_is_read_is_refused(
    data_root: Path, clinic: Path, monkeypatch: pytest.MonkeyPatch, write: bytes
) -> None:
    path = clinic / "rows.csv"
    path.write_bytes(b"rows")
    os.utime(path, ns=(1, 1))
    real = os.fstat

    def write_after_the_look(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if stat.S_ISREG(status.st_mode) and path.read_bytes() == b"rows":
            path.write_bytes(write)
        return status

    monkeypatch.setattr(os, "fstat", write_after_the_look)
    with pytest.raises(DatasetRejected, match="changed while it was read"):
        _read(data_root)
