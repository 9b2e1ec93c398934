"""Shared parts of both packages' command lines: lazy commands, and one error line for any failure.

Using a command imports it, so ``--help`` loads no framework. A refusal, an option out of range, a missing file or
Ctrl-C ends in one line on stderr and an exit code, never in a traceback; only this module decides so. A path below
the folder that the reader stands in is written relative to that folder.
``AEGIS_TRACEBACK=1`` shows where an unexpected failure came from.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from coreason_enclave.errors import ConfigurationError, EnclaveError, EnvelopeError, LedgerCorrupted, Reason
from coreason_enclave.system import (
    FORMAT_VARIABLE,
    LEVEL_VARIABLE,
    LogFormat,
    LogLevel,
    configure_logging,
    did_you_mean,
    explain,
    from_here,
)

TRACEBACK_VARIABLE = "AEGIS_TRACEBACK"
_OURS = ("aegis", "coreason_enclave")
_NO_ARGUMENTS: type[Exception] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())  # since Click 8.2


class ExitCode(IntEnum):
    """A command's exit codes for scripts. Commands may add their own codes from 10 on."""

    OK = 0
    INTERNAL = 1
    UNUSABLE = 2
    REFUSED = 3
    PAUSED = 4
    INTERRUPTED = 130
    TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM arrived: the command unwinds, which ends its child processes, as Ctrl-C would."""


Refusals = Mapping[type[Exception], ExitCode]

_REFUSALS: Refusals = {
    ConfigurationError: ExitCode.UNUSABLE,
    EnvelopeError: ExitCode.UNUSABLE,
    EnclaveError: ExitCode.REFUSED,
    ValidationError: ExitCode.UNUSABLE,
    OSError: ExitCode.UNUSABLE,
}


@dataclass(frozen=True)
class LazyCommand:
    """A command imported on use: its ``package.module:attribute``, and its line in the command list.

    A hidden command works without a line in the list. It keeps a former name alive for one release.
    """

    target: str
    short_help: str
    hidden: bool = False

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a command")
        return command


class CommandLine(click.Group):
    """The root group of a program.

    Args:
        later: commands by name, imported on use.
        refusals: exit codes of further exception types; the type nearest to the raised exception decides.
    """

    def __init__(
        self,
        *args: Any,
        later: Mapping[str, LazyCommand] | None = None,
        refusals: Refusals | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.params.extend(_logging_options())
        self.later = dict(later or {})
        self._refusals = {**_REFUSALS, **(refusals or {})}

    def invoke(self, ctx: click.Context) -> Any:
        """Set up logging as options or environment say, then run the command."""
        if {LEVEL_VARIABLE, FORMAT_VARIABLE} & os.environ.keys():
            configure_logging()
        return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names without hidden commands, sorted; imports no command."""
        listed = {name for name, command in self.later.items() if not command.hidden}
        return sorted(listed | set(super().list_commands(ctx)) - (self.later.keys() - listed))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, and import it on first use."""
        if cmd_name in self.later and cmd_name not in self.commands:
            self.add_command(self.later[cmd_name].load(), cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing one."""
        rows = [(name, self._short_help(name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _short_help(self, name: str) -> str:
        return self.later[name].short_help if name in self.later else self.commands[name].get_short_help_str(100)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit unless ``standalone_mode`` is off. A failure prints one line on stderr."""
        rest = {"windows_expand_args": windows_expand_args, **extra}
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **rest)
        try:
            with _ending_at_sigterm():
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **rest)
        except Terminated:
            line = "ended by SIGTERM: all files on disk are complete; repeat the command to continue or start over"
            code = _print_error(line, ExitCode.TERMINATED)
        except click.Abort:
            line = "interrupted: all files on disk are complete; repeat the command to continue or start over"
            code = _print_error(line, ExitCode.INTERRUPTED)
        except click.ClickException as error:
            code = _report_misuse(error)
        except Exception as error:  # noqa: BLE001 - the one place where nothing may pass as a traceback
            code = self._report_failure(error)
        sys.exit(int(code) if isinstance(code, int) else 0)

    def _report_failure(self, error: Exception) -> int:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise error
        for kind in type(error).__mro__:
            if kind in self._refusals:
                return _print_error(one_line(error), self._refusals[kind])
        if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] not in _OURS:
            line = f"this command needs {error.name}, which is not installed: pip install 'aegis-fl[all]'"
            return _print_error(line, ExitCode.UNUSABLE)
        line = f"internal: {type(error).__name__}: {one_line(error)} ({TRACEBACK_VARIABLE}=1 shows where)"
        return _print_error(line, ExitCode.INTERNAL)


@contextmanager
def _ending_at_sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` at SIGTERM while the body runs, unless a handler exists or this is no main thread."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not cut the end of child processes short
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _logging_options() -> list[click.Option]:
    """Return the logging options. Their values go to the environment, which child processes inherit."""

    def to_environment(variable: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
        def store(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
            if value is not None:
                os.environ[variable] = value

        return store

    levels, forms = click.Choice([each.value for each in LogLevel]), click.Choice([each.value for each in LogFormat])
    level_help = f"Lowest level of log lines written to stderr. Environment variable: {LEVEL_VARIABLE}."
    return [
        click.Option(
            ["--log-level"], type=levels, expose_value=False, callback=to_environment(LEVEL_VARIABLE), help=level_help
        ),
        click.Option(
            ["--log-format"],
            type=forms,
            expose_value=False,
            callback=to_environment(FORMAT_VARIABLE),
            help=f"Format of log lines. Environment variable: {FORMAT_VARIABLE}.",
        ),
    ]


def site_folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Option callback: return a site's folder, given directly or by its ``site.toml``."""
    folder = value.parent if value.name == "site.toml" else value
    if not (folder / "site.toml").is_file():
        raise click.BadParameter(f"{folder} has no site.toml", context, parameter)
    return folder


@contextmanager
def content_of(path: Path, *, made_by: str) -> Iterator[None]:
    """Name the file in an error about its content, and for a file of another kind the command that makes the right one.

    The error keeps its type and its reason.

    >>> with content_of(Path("grant.json"), made_by="aegis federation admit"):
    ...     raise EnvelopeError("expected a JSON object")
    Traceback (most recent call last):
    coreason_enclave.errors.EnvelopeError: grant.json: expected a JSON object: `aegis federation admit` makes the file
    """
    try:
        yield
    except (EnvelopeError, LedgerCorrupted) as error:
        other_kind = isinstance(error.__cause__, EnvelopeError | ValidationError)
        foreign = other_kind if isinstance(error, LedgerCorrupted) else error.reason is Reason.MALFORMED
        remedy = f": `{made_by}` makes the file" if foreign else ""
        if str(path) not in str(error):
            error.args = (f"{path}: {error}{remedy}",)
        raise


def one_line(error: Exception) -> str:
    """Return an exception's message on one line."""
    if isinstance(error, ValidationError):
        return explain(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def printable(text: str) -> str:
    """Return ``text`` with every character that a terminal could obey, such as ESC, written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _report_misuse(error: click.ClickException) -> int:
    if isinstance(error, _NO_ARGUMENTS):
        error.show()
        return ExitCode.UNUSABLE
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = "" if context is None else f" (see {context.command_path} --help)"
    return _print_error(" ".join(_misuse(error).split()) + hint, error.exit_code)


def _misuse(error: click.ClickException) -> str:
    """Return what was wrong, with the nearest known name if a command, an option or a choice may be mistyped.

    Click's own guesses, up to three of them in a form that differs by version, are left out.
    """
    text = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return text
    given, known = "", list[str]()
    if isinstance(error, click.NoSuchOption):
        given, text = error.option_name, f"No such option {error.option_name!r}."
        known = [name for each in context.command.get_params(context) for name in (*each.opts, *each.secondary_opts)]
    elif match := re.match(r"No such command '(.+?)'", text):
        given, text = match[1], f"No such command {match[1]!r}."
        known = context.command.list_commands(context) if isinstance(context.command, click.Group) else []
    elif isinstance(error, click.BadParameter) and (match := re.match(r"'([^']*)' is not one of '", error.message)):
        given = match[1]
        choice = error.param.type if error.param else None
        known = [str(each) for each in choice.choices] if isinstance(choice, click.Choice) else []
    return text + _question(given, known) if known else text


def _question(given: str, known: Iterable[str]) -> str:
    """Return `` Did you mean '…'?`` for the nearest known name, or an empty text."""
    near = did_you_mean(given, known)
    return f" D{near.removeprefix(', d')}" if near else ""


def refuse_mistyped_command(context: click.Context, given: str, names: Iterable[str]) -> None:
    """Refuse a word in the place of a file or folder that is the name of neither, but nearly a subcommand's.

    Raises:
        click.UsageError: ``given`` looks like a mistyped subcommand of ``names``.
    """
    if not re.fullmatch(r"[a-z-]+", given) or os.path.lexists(given):
        return
    if near := _question(given, names):
        raise click.UsageError(f"No such command, file or folder {given!r}.{near}", context)


def _print_error(line: str, code: int) -> int:
    click.echo(f"error: {printable(from_here(line))}", err=True)
    return code
