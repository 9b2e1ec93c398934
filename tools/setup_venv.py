"""Bring ``.venv`` to what this tree asks for: once, quietly, and again from wherever it was interrupted.

Run by the Makefile with any Python >= 3.11, from the standard library alone::

    python3 tools/setup_venv.py all          # what `make demo` needs
    python3 tools/setup_venv.py all,dev      # what `make test` and `make lint` need

When nothing has changed it returns at once. A stamp inside ``.venv`` records the digest of ``pyproject.toml``
and ``constraints.txt``, the folder and the extras; it is written last, so whatever interrupts an installation
leaves a tree without a stamp, and the next call repairs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "constraints.txt")
OLDEST_PYTHON = (3, 11)


def fingerprint(root: Path) -> str:
    """A digest of what decides which packages are installed, and where the editable install points to."""
    digest = hashlib.sha256(str(root).encode())
    for name in INPUTS:
        digest.update(hashlib.sha256((root / name).read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Stamp:
    """What the last finished installation left: for which folder and inputs, and with which extras."""

    fingerprint: str = ""
    root: str = ""
    extras: frozenset[str] = frozenset()


def read_stamp(venv: Path) -> Stamp:
    """The stamp in ``venv``; an empty one if there is none or it cannot be read."""
    try:
        found = json.loads((venv / "setup.json").read_text(encoding="utf-8"))
        return Stamp(str(found["fingerprint"]), str(found["root"]), frozenset(map(str, found["extras"])))
    except (OSError, ValueError, TypeError, KeyError):
        return Stamp()


def write_stamp(venv: Path, stamp: Stamp) -> None:
    """Record a finished installation."""
    record = {"fingerprint": stamp.fingerprint, "root": stamp.root, "extras": sorted(stamp.extras)}
    (venv / "setup.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def interpreter_works(venv: Path, *, module: str = "sys") -> bool:
    """Whether ``.venv`` has a Python that starts, is new enough and can import ``module``."""
    program = f"import sys, {module}; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    try:
        done = subprocess.run([venv / "bin" / "python", "-c", program], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def forget_unfinished_packages(venv: Path) -> list[str]:
    """Remove the metadata of packages whose installation was cut short; return their names.

    pip writes ``INSTALLER`` after a package's files and takes a package for installed as soon as its metadata
    folder is there, so an installation killed in between would be believed ever after.
    """
    forgotten = []
    for site_packages in venv.glob("lib/python*/site-packages"):
        for leftover in site_packages.glob("~*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for metadata in site_packages.glob("*.dist-info"):
            if not all((metadata / name).is_file() for name in ("METADATA", "INSTALLER", "RECORD")):
                shutil.rmtree(metadata)
                forgotten.append(metadata.name.removesuffix(".dist-info"))
    return sorted(forgotten)


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """One line per stage: what is being done, then how long it took."""
    started = time.monotonic()
    print(f"setup: {title} …", end=" ", file=sys.stderr, flush=True)
    yield
    print(f"done ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Two `make` at once wait for each other instead of installing into the same folder together."""
    with (root / "pyproject.toml").open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_logged(command: list[str], log: Path) -> None:
    """Run ``command`` with its output in ``log``; on failure show the end of it and where the rest is."""
    with log.open("ab") as sink:
        done = subprocess.run(command, cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        print("failed", *tail, f"setup: the whole output is in {log}", sep="\n", file=sys.stderr)
        raise SystemExit(1)


def create(venv: Path) -> None:
    """Make ``.venv`` anew with the interpreter that runs this script."""
    version = ".".join(map(str, sys.version_info[:3]))
    if any(util.find_spec(module) is None for module in ("venv", "ensurepip")):
        package = f"python3.{sys.version_info.minor}-venv"
        print(
            f"setup: {sys.executable} has no venv module: apt install {package}, then call make again", file=sys.stderr
        )
        raise SystemExit(2)
    with stage(f"creating .venv with Python {version}"):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)


def install(venv: Path, extras: set[str]) -> None:
    """Install this tree with ``extras``, inside the tested constraints."""
    asked_for = f".[{','.join(sorted(extras))}]"
    log = venv / "setup.log"
    log.unlink(missing_ok=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    with stage(f"installing {asked_for} (some minutes the first time; log: {log.relative_to(ROOT)})"):
        run_logged([*pip, "install", "-c", "constraints.txt", "-e", asked_for], log)
        run_logged([*pip, "check"], log)


def bring_up_to_date(venv: Path, wanted: set[str]) -> None:
    """Do only what is missing; the stamp comes last."""
    present = read_stamp(venv)
    goal = Stamp(fingerprint(ROOT), str(ROOT), present.extras | wanted)
    if present == goal and interpreter_works(venv):
        return
    (venv / "setup.json").unlink(missing_ok=True)
    moved = present.root not in ("", goal.root)
    if moved or not interpreter_works(venv, module="pip"):
        create(venv)
    if unfinished := forget_unfinished_packages(venv):
        print(f"setup: installing again what was cut short: {', '.join(unfinished)}", file=sys.stderr)
    install(venv, set(goal.extras))
    write_stamp(venv, goal)


def known_extras(root: Path) -> set[str]:
    """The extras that ``pyproject.toml`` declares; pip would install nothing for another name, and say so in a log."""
    import tomllib  # since Python 3.11, which main has checked by now

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def main(arguments: list[str]) -> int:
    """Entry point: one argument, the extras, joined by commas."""
    if sys.version_info < OLDEST_PYTHON:
        print("setup: Python 3.11 or newer is needed; call `make PYTHON=/path/to/python3.11 …`", file=sys.stderr)
        return 2
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    wanted = {extra for extra in arguments[0].split(",") if extra}
    if unknown := sorted(wanted - known_extras(ROOT)):
        known = ", ".join(sorted(known_extras(ROOT)))
        print(f"setup: pyproject.toml has no extra {unknown[0]!r}: choose from {known}", file=sys.stderr)
        return 2
    with only_one(ROOT):
        bring_up_to_date(ROOT / ".venv", wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
