"""The stream of a CSV file's text: decoded, counted, and never far ahead of the rows that were taken."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.datasets import CsvForm, csv_text
from coreason_enclave.datasets.csv_text import CsvText, NotText
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.paths import OpenFile


def stream(data: bytes, **form: object) -> CsvText:
    file = OpenFile(io.BytesIO(data), "rows.csv", len(data), 1 << 30)  # type: ignore[arg-type]
    return CsvText(HashedFile(file, b""), CsvForm.model_validate(form))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def test_a_reading_thread_waits_for_the_rows_to_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "_PATIENCE_S", 60.0)
    text, blocks = stream(b"1,1\n" * 10_000), []

    def read() -> None:
        while block := text.read(1000):
            blocks.append(block)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    eventually(lambda: len(blocks) >= 4)
    thread.join(0.2)
    assert len(blocks) == 4
    text.advance()
    eventually(lambda: len(blocks) == 5)
    text.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert text.read(1000) == b""


def test_a_reader_that_is_never_advanced_still_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "_PATIENCE_S", 0.001)
    text = stream(b"1,1\n" * 1000)
    assert b"".join(iter(lambda: text.read(100), b"")) == b"1,1\n" * 1000


@given(st.text(alphabet='aé\r\n "張', max_size=60), st.sampled_from(["utf-8", "utf-16", "gb18030"]), st.integers(1, 7))
def test_text_arrives_whole_in_any_encoding_and_in_parts_of_any_size(text: str, encoding: str, size: int) -> None:
    found = stream(text.encode(encoding), encoding=encoding)
    found.peek_head()
    parts = []
    while part := found.read(size):
        assert len(part) <= size
        parts.append(part)
        found.advance()
    assert b"".join(parts).decode() == text


@given(
    st.lists(st.sampled_from(["a", "", " ", "b,c"]), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans()
)
def test_lines_count_up_to_the_last_one_with_content(lines: list[str], end: str, closed: bool) -> None:
    text = stream((end.join(lines) + (end if closed else "")).encode())
    while text.read(1 << 20):
        pass
    places = [place for place, line in enumerate(lines, start=1) if line.strip()]
    assert text.content_lines == (places[-1] if places else 0)


@given(st.integers(0, 4), st.sampled_from(["\n", "\r\n", "\r"]))
def test_skipped_lines_are_left_out(skip: int, end: str) -> None:
    lines = ["one", "two", "three", "four", "five"]
    text = stream(end.join(lines).encode(), skip_rows=skip)
    assert text.peek_head() == end.join(lines[skip:]).encode()


@pytest.mark.parametrize("data", [b"a\xff", b"a\xc3", b"\xed\xa0\x80"], ids=["a byte", "half a sign", "a surrogate"])
def test_bytes_outside_the_encoding_are_refused_anywhere(data: bytes) -> None:
    with pytest.raises(NotText, match="not UTF-8"):
        stream(b"x,y\n" + data).read()


def test_an_encoding_that_is_no_encoding_of_text_is_refused() -> None:
    for name in ("rot13", "base64", "unicode_escape", "utf-7", "no such", "idna"):
        with pytest.raises(ValueError, match="must be a text encoding"):
            CsvForm(encoding=name)


@pytest.mark.parametrize("sign", ["", ",,", '"', "\n", "a", "1", ".", "-", "é", "\\"])
def test_a_sign_that_occurs_in_cells_is_no_delimiter(sign: str) -> None:
    with pytest.raises(ValueError, match="must be one ASCII sign"):
        CsvForm(delimiter=sign)
