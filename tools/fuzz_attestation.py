"""Damage evidence and endorsements at random, and see that nothing but a refusal comes of it.

    python tools/fuzz_attestation.py --seconds 600        # what `make fuzz-attestation SECONDS=600` runs

What is damaged: a generated hierarchy of each kind (the tests' own), and recorded evidence where AEGIS_EVIDENCE_DIR
names a folder with some. Two things are findings: anything raised that is no ``VerificationRefused``, and a verdict
that is not the one over the undamaged bytes. The seed is printed; the same seed damages alike. Exit 1 on a finding.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coreason_enclave.attestation.verify.verdict import VerificationRefused  # noqa: E402 - the tree is found first

MAX_FINDINGS = 20
LARGEST_INPUT = 1 << 21
TELLING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\x7f",
    b"<",
    b"&",
    b"-----",
)


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Attributes:
        genuine: what it reads when nothing is damaged.
        read: reads; raises a refusal or returns what it found, in a form that can be compared.
        believes: whether what was found may come of damaged bytes, given what the genuine ones say.
    """

    name: str
    genuine: bytes
    read: Callable[[bytes], object]
    believes: Callable[[object, object], bool]


@dataclass
class Tally:
    """What happened so far."""

    executions: int = 0
    findings: int = 0


def damage(genuine: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A copy with one to four wounds: bits, bytes, pieces cut, repeated, moved, or taken from somewhere else."""
    data = bytearray(genuine)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        length = min(chance.choice((1, 2, 4, 16, 64, 1024)), len(data) - at)
        wound = chance.randrange(7)
        if wound == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif wound == 1:
            del data[at : at + length]
        elif wound == 2:
            data[at : at + length] = chance.choice(TELLING)
        elif wound == 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif wound == 4:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            data[at : at + length] = other[start : start + length]
        elif wound == 5:
            data[at:at] = data[at : at + length] * chance.choice((1, 2, 40))
        else:
            del data[at:]
    return bytes(data[:LARGEST_INPUT])


def attempt(target: Target, data: bytes, expected: object) -> str | None:
    """What is wrong with how ``target`` reads ``data``; None if nothing is."""
    try:
        found = target.read(data)
    except VerificationRefused:
        return None
    except Exception:  # noqa: BLE001 - finding these is what this is for
        return traceback.format_exc(limit=-4)
    return None if target.believes(found, expected) else f"believed damaged bytes: {str(found)[:400]}"


def fuzz(targets: Sequence[Target], seconds: float, seed: int) -> Tally:
    """Damage each target's input in turn until the time is up or too much was found."""
    chance = random.Random(seed)  # noqa: S311 - damage has to be repeatable, not secret
    expected = {target.name: target.read(target.genuine) for target in targets}
    others = [target.genuine for target in targets]
    tally, end = Tally(), time.monotonic() + seconds
    while time.monotonic() < end and tally.findings < MAX_FINDINGS:
        for target in targets:
            data = damage(target.genuine, others, chance)
            if data == target.genuine:
                continue
            tally.executions += 1
            wrong = attempt(target, data, expected[target.name])
            if wrong is None:
                continue
            tally.findings += 1
            print(f"FINDING in {target.name}, {len(data)} bytes: {data.hex()[:2000]}\n{wrong}", flush=True)
    return tally


def all_targets() -> list[Target]:
    """Every parser and every verifier, over generated evidence and over recorded evidence where there is some."""
    targets: list[Target] = import_module("tests.coreason_enclave.attestation.targets").all_targets(
        os.environ.get("AEGIS_EVIDENCE_DIR")
    )
    return targets


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Damage evidence at random; nothing but a refusal may come of it.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args(arguments)
    seed = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(4))
    warnings.simplefilter("ignore")
    targets = all_targets()
    print(f"{len(targets)} targets, {asked.seconds:g} s, --seed {seed}", flush=True)
    tally = fuzz(targets, asked.seconds, seed)
    print(f"{tally.executions} executions, {tally.findings} findings")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
