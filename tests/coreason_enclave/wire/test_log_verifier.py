"""The small verifier of logs stands alone, accepts what is right, and agrees with the product on every proof."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto.merkle import MerkleTree, leaf_hash, verify_consistency
from tests.coreason_enclave.wire import story
from tests.coreason_enclave.wire.golden import read, resealed

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "tools" / "verify_log.py"


def load(program: Path) -> ModuleType:
    """The verifier, as whoever copied it would load it."""
    spec = importlib.util.spec_from_file_location("verify_log", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def logs() -> ModuleType:
    return load(PROGRAM)


def refused(logs: Any, check: Any, *arguments: Any) -> bool:
    try:
        return not logs.refusing(check, *arguments)
    except logs.Refused:
        return True


def test_the_verifier_of_logs_is_small_and_imports_nothing_of_ours() -> None:
    source = PROGRAM.read_text()
    assert len(source.splitlines()) < 300
    nodes = list(ast.walk(ast.parse(source)))
    imported = {alias.name.split(".")[0] for each in nodes if isinstance(each, ast.Import) for alias in each.names}
    imported |= {str(each.module).split(".")[0] for each in nodes if isinstance(each, ast.ImportFrom)}
    assert imported <= {"cryptography", *sys.stdlib_module_names}


def test_the_golden_vectors_verify_as_a_program() -> None:
    command = [sys.executable, "-I", PROGRAM, "vectors", story.VECTORS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "verified\n"), done.stderr


@pytest.mark.parametrize("arguments", [(), ("run", "/nowhere"), ("vectors", "/nowhere"), ("witness", "a", "b")])
def test_what_is_not_understood_is_not_verified(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-I", PROGRAM, *arguments], capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert b"verified" not in done.stdout


def sides(lines: int) -> MerkleTree:
    tree = MerkleTree()
    for number in range(lines):
        tree.append(leaf_hash(b"line %d" % number))
    return tree


@given(sizes=st.tuples(st.integers(0, 80), st.integers(0, 80)).map(sorted), flip=st.none() | st.integers(0))
def test_product_and_verifier_decide_alike_on_a_proof(logs: ModuleType, sizes: list[int], flip: int | None) -> None:
    (older, size), tree = sizes, sides(sizes[1])
    roots, path = (tree.root(older), tree.root()), tree.consistency(older)
    if flip is not None and path:
        place, bit = divmod(flip % (256 * len(path)), 256)
        data = bytearray(path[place])
        data[bit // 8] ^= 1 << bit % 8
        path[place] = bytes(data)
    ends = [{"size": at, "root": root.hex()} for at, root in zip(sizes, roots, strict=True)]
    ours = verify_consistency(older, roots[0], size, roots[1], path)
    assert ours == (not refused(logs, logs.continues, *ends, [each.hex() for each in path]))
    assert ours == (flip is None or not path)


ANOTHER = {"size": 2, "root": "0" * 64}
OTHER_ROOT = resealed("log-checkpoint", "coordinator", root="0" * 64)
ALTERED: dict[str, dict[str, Any]] = {
    "a site that saw another log than the order's": {"update": resealed("update", "clinic-1", log_seen=ANOTHER)},
    "a proof for another size than the one that was seen": {
        "attestation": resealed("attestation", "clinic-1", log_seen={**ANOTHER, "size": 1}),
    },
    "a checkpoint that a site signed": {
        "round-order": resealed("round-order", "coordinator", log=resealed("log-checkpoint", "clinic-1"))
    },
    "a checkpoint of another run's log": {
        "round-order": resealed(
            "round-order", "coordinator", log=resealed("log-checkpoint", "coordinator", origin=f"aegis/run/{'0' * 64}")
        )
    },
    "a checkpoint of another root": {
        "round-order": resealed("round-order", "coordinator", log=OTHER_ROOT),
        "update": resealed("update", "clinic-1", log_seen=ANOTHER),
    },
    "a proof of nothing": {"round-order": resealed("round-order", "coordinator", log_proof={"since": 0, "hashes": []})},
}


@pytest.mark.parametrize("changes", ALTERED.values(), ids=ALTERED)
def test_an_exchange_about_two_logs_is_refused(logs: ModuleType, changes: dict[str, Any]) -> None:
    assert not refused(logs, logs.exchange, read("exchange"))
    assert refused(logs, logs.exchange, {**read("exchange"), **changes})


def test_a_line_that_was_changed_below_a_checkpoint_is_refused(logs: ModuleType) -> None:
    vector = read("log")
    for place, line in enumerate(vector["lines"].split("\n")[:2]):
        changed = json.dumps({**json.loads(line), "actor": "another"}, sort_keys=True, separators=(",", ":"))
        lines = vector["lines"].replace(line, changed)
        assert refused(logs, logs.vector, {**vector, "lines": lines}), place


def test_a_statement_holds_where_every_checkpoint_is_of_the_log_and_not_where_one_is_of_a_fork(
    logs: ModuleType,
) -> None:
    statement, lines = read("witness-statement")["payload"], read("log")["lines"].encode().split(b"\n")[:-1]
    (kept,) = statement["logs"]
    about = kept["origin"], kept["coordinator_key"]
    with pytest.raises(logs.Refused, match="written anew"):
        logs.witnessed(lines, statement, *about)
    honest = {"logs": [{**kept, "refused": [], "abandoned": []}]}
    assert logs.witnessed(lines, honest, *about) == 1
    assert logs.witnessed(lines, honest, "another origin", about[1]) == 0
