"""One configuration of logging: levels, forms, and nothing in a line that an exception said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.main import main
from coreason_enclave.system.logging_setup import FORMAT_VARIABLE, LEVEL_VARIABLE, LogLevel, configure_logging

ROW = "patient p007, age 41.5"


@pytest.fixture(autouse=True)
def _root_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in (LEVEL_VARIABLE, FORMAT_VARIABLE):
        monkeypatch.setenv(variable, "info")  # so that its absence is what the end restores
        monkeypatch.delenv(variable)
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, ("httpx", "httpcore")))}
    yield
    root.handlers[:] = handlers
    for logger, level in levels.items():
        logger.setLevel(level)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_json_is_one_object_a_line_with_the_process_in_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    configure_logging({"process": "gateway"}, default=LogLevel.INFO)
    logging.getLogger("aegis.http").info("%d connections\nin two lines", 3)

    (line,) = lines_of(capsys)
    document = json.loads(line)
    assert {name: document[name] for name in document if name != "time"} == {
        "process": "gateway",
        "level": "info",
        "logger": "aegis.http",
        "message": "3 connections\nin two lines",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_of_several_lines_cannot_start_a_line_of_its_own(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, form)
    configure_logging()
    logging.getLogger("x").warning("first\n2026-01-01T00:00:00+00:00 INFO forged")

    assert len(lines_of(capsys)) == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_named_by_its_class_and_says_nothing(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, form)
    configure_logging()
    try:
        raise ValueError(ROW)
    except ValueError:
        logging.getLogger("x").exception("a loop failed")

    (line,) = lines_of(capsys)
    assert "ValueError" in line
    assert "p007" not in line


@pytest.mark.parametrize("level", ["debug", "info", "error"])
def test_addresses_of_requests_are_not_written(
    level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, level)
    configure_logging()
    for name in ("httpx", "httpcore.connection"):
        logging.getLogger(name).info("HTTP Request: GET https://kdsintf.amd.com/vcek/v1/Milan/%s", "ab" * 64)
        logging.getLogger(name).warning("a connection was lost")

    written = lines_of(capsys)
    assert not any("https" in line for line in written)
    assert len(written) == (0 if level == "error" else 2)


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_a_level_leaves_out_what_is_less_severe(
    level: str, written: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, level)
    configure_logging()
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("x").log(number, "level %d", number)

    assert len(lines_of(capsys)) == written


@pytest.mark.parametrize(
    ("variable", "word"), [(LEVEL_VARIABLE, "loud"), (FORMAT_VARIABLE, "xml"), (LEVEL_VARIABLE, "")]
)
def test_a_word_that_is_no_level_and_no_form_is_refused_and_changes_nothing(
    variable: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = logging.getLogger().handlers[:]
    monkeypatch.setenv(variable, word)
    with pytest.raises(ConfigurationError, match="must be one of"):
        configure_logging()
    assert logging.getLogger().handlers == before


def test_an_option_outranks_the_environment_and_reaches_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "error")
    import os

    done = CliRunner().invoke(main, ["--log-level", "debug", "--log-format", "json", "ledger", "show", "--help"])
    assert done.exit_code == 0, done.output
    assert (os.environ[LEVEL_VARIABLE], os.environ[FORMAT_VARIABLE]) == ("debug", "json")


def test_a_wrong_level_in_the_environment_is_one_line_and_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "loud")
    done = CliRunner().invoke(main, ["ledger", "show", "nowhere"])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "AEGIS_LOG_LEVEL is 'loud'" in done.stderr
