"""Measure the prose of docstrings: the share of pronouns and deictic words, which send a reader back to the code.

    python tools/prose.py aegis coreason_enclave                  # one line for each package
    python tools/prose.py --check aegis coreason_enclave          # exit 1 where a limit is passed (`make lint`)
    python tools/prose.py --worst 20 aegis/rounds                 # the sentences to rewrite first

A sentence counts from six words on. Neighbours lie between 0.05 and 0.07 (sigstore-python 0.049, dp_accounting 0.058,
httpx 0.058, python-tuf 0.066). The limits: a mean of at most 0.09, and at most 1 % of sentences at 0.35 or more.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_VAGUE = """
what whoever whom whose which it that there nothing none nobody one other others so as such these those this then
anew besides beside likewise is are was
"""
VAGUE = frozenset(_VAGUE.split())
SHORTEST = 6
MEAN_LIMIT = 0.09
UNREADABLE = 0.35
UNREADABLE_LIMIT = 0.01


class Sentence(NamedTuple):
    """A sentence of a docstring, and the share of vague words among its words."""

    share: float
    path: Path
    text: str


def sentences(path: Path) -> Iterator[Sentence]:
    """Yield the sentences of a file's docstrings, doctests left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for text in re.split(r"(?<=[.:;])\s+", (ast.get_docstring(node) or "").split(">>>")[0]):
            words = re.findall(r"[a-z']+", text.lower())
            if len(words) >= SHORTEST:
                yield Sentence(sum(word in VAGUE for word in words) / len(words), path, " ".join(text.split()))


def measured(root: Path) -> list[Sentence]:
    """Return all sentences below ``root``, a folder or a file."""
    paths = sorted(root.rglob("*.py")) if root.is_dir() else [root]
    return [sentence for path in paths for sentence in sentences(path)]


def faults(found: list[Sentence]) -> list[str]:
    """Return which limits ``found`` passes, in words."""
    if not found:
        return ["no sentence was found"]
    mean = statistics.mean(sentence.share for sentence in found)
    unreadable = sum(sentence.share >= UNREADABLE for sentence in found) / len(found)
    passed = [f"the mean share {mean:.3f} is above {MEAN_LIMIT}"] if mean > MEAN_LIMIT else []
    if unreadable > UNREADABLE_LIMIT:
        passed.append(f"{unreadable:.1%} of the sentences are at {UNREADABLE} or more, above {UNREADABLE_LIMIT:.0%}")
    return passed


def main() -> int:
    """Print the measure of each root; return 1 if ``--check`` was asked for and a limit is passed."""
    parser = argparse.ArgumentParser(description="Measure the prose of docstrings.")
    parser.add_argument("roots", nargs="+", type=Path, metavar="FOLDER_OR_FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 where a limit is passed")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="also print the N worst sentences")
    options = parser.parse_args()
    failed = False
    for root in options.roots:
        found = measured(root)
        passed = faults(found)
        failed = failed or bool(passed)
        shares = [sentence.share for sentence in found] or [0.0]
        high = sum(share >= UNREADABLE for share in shares) / len(shares)
        print(f"{root}: {len(found)} sentences, mean share {statistics.mean(shares):.3f}, {high:.1%} at {UNREADABLE}")
        for sentence in sorted(found, reverse=True)[: options.worst]:
            print(f"  {sentence.share:.2f} {sentence.path}: {sentence.text[:140]}")
        for fault in passed:
            print(f"  {fault}: rewrite the worst first (--worst 20)", file=sys.stderr)
    return 1 if options.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
