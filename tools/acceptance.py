"""Run, for each stage of the product, the command that shows its criterion, and write down what happened.

The rows are in ``tools/acceptance.toml``. Each command is really run; its exit status is the outcome, its
last line is kept beside it. A stage whose files are missing is *not built*, which is never shown as passed.

    python tools/acceptance.py                    # all stages; writes docs/ACCEPTANCE.md
    python tools/acceptance.py "DP engine" docs   # only these, printed and not written
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "tools" / "acceptance.toml"
PAGE = ROOT / "docs" / "ACCEPTANCE.md"
LONGEST_RUN = 1800.0


class Outcome(StrEnum):
    """What a row can say. ``NOT_BUILT`` is neither a pass nor a failure."""

    PASSED = "passed"
    FAILED = "FAILED"
    NOT_BUILT = "not built"


@dataclass(frozen=True)
class Stage:
    """A row: what has to hold, the command that shows it, and the files without which it is not built."""

    name: str
    criterion: str
    command: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What a stage's command did just now."""

    stage: Stage
    outcome: Outcome
    seconds: float
    said: str


def load(rows: Path) -> list[Stage]:
    """The rows in their order; every field is required and none may be empty."""
    stages = [
        Stage(row["name"], row["criterion"], row["command"], tuple(row["needs"]))
        for row in tomllib.loads(rows.read_text(encoding="utf-8"))["stage"]
    ]
    if incomplete := [stage.name for stage in stages if not (stage.criterion and stage.command and stage.needs)]:
        raise SystemExit(f"{rows.name}: no criterion, command or needs in {', '.join(incomplete)}")
    return stages


def environment() -> dict[str, str]:
    """This process's environment, the tree's interpreter first, without what an outer `make` passes on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    own = str(Path(sys.executable).parent)
    return {**kept, "PATH": os.pathsep.join([own, kept.get("PATH", "")]), "OMP_NUM_THREADS": "1"}


def last_line(output: str) -> str:
    """The last line with something in it, without pytest's rule of equal signs."""
    lines = [line.strip(" =") for line in output.splitlines() if line.strip(" =")]
    return lines[-1] if lines else ""


def show(stage: Stage, root: Path) -> Result:
    """Run the stage's command, if what it needs is there."""
    if missing := [name for name in stage.needs if not (root / name).exists()]:
        return Result(stage, Outcome.NOT_BUILT, 0.0, f"missing: {', '.join(missing)}")
    started = time.monotonic()
    try:
        done = subprocess.run(
            shlex.split(stage.command),
            cwd=root,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_RUN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(stage, Outcome.FAILED, LONGEST_RUN, "still running at the time limit")
    outcome = Outcome.FAILED if done.returncode else Outcome.PASSED
    return Result(stage, outcome, time.monotonic() - started, last_line(done.stdout))


def revision(root: Path) -> str:
    """The commit that was looked at, with a word on changes since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "a tree without a commit"
    changed = [line for line in git("status", "--porcelain").splitlines() if not line.endswith("docs/ACCEPTANCE.md")]
    return f"commit {commit}" + (f" with {len(changed)} changed files" if changed else "")


def summary(results: list[Result]) -> str:
    """How many of each, in one line."""
    return ", ".join(f"{sum(r.outcome is kind for r in results)} {kind.lower()}" for kind in Outcome)


def as_page(results: list[Result], looked_at: str, moment: datetime) -> str:
    """The table as Markdown; every cell that comes from a command's output is escaped."""

    def cell(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

    rows = [
        f"| {r.stage.name} | {cell(r.stage.criterion)} | `{r.stage.command}` | {r.outcome} "
        f"| {f'{r.seconds:.0f} s' if r.outcome is not Outcome.NOT_BUILT else ''} | {cell(r.said)} |"
        for r in results
    ]
    return "\n".join(
        [
            "# Acceptance",
            "",
            "Written by `make acceptance`, which runs every command below; do not edit. The rows are in",
            "`tools/acceptance.toml`. A stage whose files are missing is shown as not built.",
            "",
            f"Run at {moment:%Y-%m-%d %H:%M} UTC on {looked_at}, Python {sys.version.split()[0]}:",
            f"**{summary(results)}**.",
            "",
            "| stage | criterion | command | outcome | time | its last line |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main(names: list[str]) -> int:
    """Run the stages; 1 if one failed, 2 if a name is unknown."""
    stages = load(ROWS)
    if unknown := set(names) - {stage.name for stage in stages}:
        print(f"no such stage: {', '.join(sorted(unknown))}; there are: {', '.join(s.name for s in stages)}")
        return 2
    results = []
    for stage in stages:
        if not names or stage.name in names:
            result = show(stage, ROOT)
            results.append(result)
            print(f"{result.outcome:<9}  {stage.name:<22} {result.seconds:5.0f} s  {result.said}", flush=True)
    print(summary(results))
    if not names:
        PAGE.write_text(as_page(results, revision(ROOT), datetime.now(UTC)), encoding="utf-8")
        print(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if any(result.outcome is Outcome.FAILED for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
