"""One configuration of logging for every process of both packages: level and form, from options or the environment.

The environment carries the choice to child processes: a supervisor, a gateway and the agents that it starts log alike.

- ``AEGIS_LOG_LEVEL``: ``debug``, ``info``, ``warning`` or ``error``;
- ``AEGIS_LOG_FORMAT``: ``text`` for a person, ``json`` (one object a line) for a collector.

A record holds a moment, a level, the logger and a message that this project wrote. A traceback may quote a user's
code or a row, so a record names an exception by its class alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from enum import StrEnum

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.system.log_files import SparingHandler
from coreason_enclave.system.timestamps import as_text

LEVEL_VARIABLE, FORMAT_VARIABLE = "AEGIS_LOG_LEVEL", "AEGIS_LOG_FORMAT"


class LogLevel(StrEnum):
    """The least severe records that a process writes."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level's number in the standard library."""
        return int(getattr(logging, self.name))


class LogFormat(StrEnum):
    """The form of a log's lines."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    >>> record = logging.makeLogRecord({"name": "aegis.http", "levelname": "INFO", "msg": "ready", "created": 0})
    >>> JsonFormatter({"process": "gateway"}).format(record).partition(", ")[2]
    '"process": "gateway", "level": "info", "logger": "aegis.http", "message": "ready"}'
    """

    def __init__(self, about: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._about = dict(about or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line feed at its end."""
        line = {
            "time": as_text(record.created),
            **self._about,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(line | _exception(record))


class TextFormatter(logging.Formatter):
    """Formats a record as a moment, the process, the level and the message.

    >>> record = logging.makeLogRecord({"levelname": "INFO", "msg": "ready", "created": 0})
    >>> TextFormatter({"process": "gateway"}).format(record)
    '1970-01-01T00:00:00+00:00 gateway INFO ready'
    """

    def __init__(self, about: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._about = dict(about or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line feed at its end; a message of several lines is written as one."""
        message = record.getMessage().replace("\n", "\\n")
        words = [as_text(record.created), *self._about.values(), record.levelname, message]
        return " ".join([*words, *(f"({name})" for name in _exception(record).values())])


def log_level(default: LogLevel = LogLevel.WARNING) -> LogLevel:
    """Return the level that the environment names, or ``default``.

    Raises:
        ConfigurationError: the environment names a level that does not exist.
    """
    return LogLevel(_named(LEVEL_VARIABLE, [level.value for level in LogLevel], default.value))


def log_format(default: LogFormat = LogFormat.TEXT) -> LogFormat:
    """Return the form that the environment names, or ``default``.

    Raises:
        ConfigurationError: the environment names a form that does not exist.
    """
    return LogFormat(_named(FORMAT_VARIABLE, [form.value for form in LogFormat], default.value))


def configure_logging(about: Mapping[str, str] | None = None, *, default: LogLevel = LogLevel.WARNING) -> None:
    """Send this process's records to standard error, in the form and from the level that the environment names.

    Args:
        about: fields that stand in every line, such as the process's name.
        default: the level if the environment names none: servers say ``info``, commands ``warning``.

    Raises:
        ConfigurationError: the environment names a level or a form that does not exist; nothing is changed.
    """
    level, form = log_level(default), log_format()
    handler = SparingHandler()
    handler.setFormatter((JsonFormatter if form is LogFormat.JSON else TextFormatter)(about))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.number)
    for name in ("httpx", "httpcore"):  # each request by its address, and a vendor's address can name this chip
        logging.getLogger(name).setLevel(max(level.number, logging.WARNING))


def _exception(record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    return {"exception": record.exc_info[0].__name__}


def _named(variable: str, allowed: list[str], default: str) -> str:
    value = os.environ.get(variable, default)
    if value not in allowed:
        raise ConfigurationError(f"{variable} is {value!r:.40}, but must be one of {', '.join(allowed)}")
    return value
