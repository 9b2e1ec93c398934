"""Files are there whole or not at all: whatever fails, and whoever reads meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from coreason_enclave.system.files import (
    PRIVATE,
    create_file,
    file_lock,
    is_locked,
    point_link,
    publish,
    replace_file,
    replacement,
)

Write = Callable[..., None]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_what_is_written_is_there_and_nothing_else_is(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "a", b"content")

    assert (tmp_path / "a").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_a_private_file_is_private_from_its_first_byte_on(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, fsync = set(), os.fsync

    def looking(descriptor: int) -> None:
        seen.update(mode_of(path) for path in tmp_path.iterdir())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", looking)
    write(tmp_path / "key", b"secret", mode=PRIVATE)

    assert seen == {0o600}


def test_an_ordinary_file_has_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "a", b"")
    finally:
        os.umask(before)

    assert mode_of(tmp_path / "a") == 0o640


def test_a_file_that_exists_is_replaced_or_refused(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", b"old")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_a_full_disk_leaves_what_was_there_and_no_other_file(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / ("old" if write is replace_file else "new")
    (tmp_path / "old").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(target, b"new")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old", b"old")]


def test_both_the_file_and_its_folder_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, fsync = list[str](), os.fsync

    def noting(descriptor: int) -> None:
        kinds.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    replace_file(tmp_path / "a", b"")
    create_file(tmp_path / "b", b"")

    assert kinds == ["file", "folder", "file", "folder"]


def test_of_writers_at_the_same_time_one_creates_the_file_and_a_reader_sees_it_whole(tmp_path: Path) -> None:
    contents, refused = [bytes([number]) * 100_000 for number in range(8)], []

    def write(content: bytes) -> None:
        try:
            create_file(tmp_path / "a", content)
        except FileExistsError:
            refused.append(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(refused) == 7
    assert (tmp_path / "a").read_bytes() in {*contents} - {*refused}


HOLDS = """
import sys; from pathlib import Path; from coreason_enclave.system.files import file_lock
with file_lock(Path(sys.argv[1]), wait=False) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def holder_of(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDS, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_one_process_at_a_time_holds_a_lock_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists(), "asking makes no file"
    with holder_of(path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "True\n"
        assert is_locked(path)
        with file_lock(path, wait=False) as held:
            assert not held
        first.kill()
    assert not is_locked(path)
    with file_lock(path, wait=False) as held:
        assert held
        assert is_locked(path)
        with file_lock(path, wait=False) as again:
            assert not again
    assert path.stat().st_mode & 0o777 == 0o600


def test_whoever_waits_for_a_lock_gets_it_when_it_is_free(tmp_path: Path) -> None:
    with holder_of(tmp_path / "lock") as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "True\n"
        threading.Timer(0.2, first.stdin.close).start()
        with file_lock(tmp_path / "lock") as held:
            assert held
            assert first.wait(10) == 0


def test_a_folder_is_published_whole_and_never_over_another_with_content(tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "a").write_bytes(b"new")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "b").write_bytes(b"old")

    with pytest.raises(OSError, match="not empty"):
        publish(tmp_path / "draft", tmp_path / "taken")
    publish(tmp_path / "draft", tmp_path / "final")

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "final",
        "final/a",
        "taken",
        "taken/b",
    ]


def test_a_link_points_to_its_newest_target_and_leaves_no_other_link(tmp_path: Path) -> None:
    for target in ("1", "2"):
        point_link(tmp_path / "latest", target)

    assert (tmp_path / "latest").readlink() == Path("2")
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


def test_a_replacement_that_fails_half_way_leaves_the_former_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    with pytest.raises(ZeroDivisionError), replacement(tmp_path / "a") as draft:
        draft.write_bytes(b"ne"[: 1 // 0])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]

    with replacement(tmp_path / "a") as draft:
        draft.write_bytes(b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]
