"""The small verifier stands alone, accepts what is right, and refuses whatever was changed."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.ledger.chain import Link, make_link
from coreason_enclave.ledger.export import write_export
from coreason_enclave.wire.checkpoints import origin_of_run, sign_log
from tests.coreason_enclave.wire import story
from tests.coreason_enclave.wire.golden import holds, read, resealed, roll_call_of, sealed_by

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "tools" / "verify_wire.py"
ALONE = {"cryptography", *sys.stdlib_module_names}

# What of each vector is signed or hashed; the rest of its file says what to expect.
SEALED = {
    **dict.fromkeys(("job-invitation", "enrolment", "round-order", "update", "ledger-head"), ("envelope",)),
    **dict.fromkeys(
        ("ledger-export", "run-manifest", "health", "participation-request", "participation-welcome"), ("envelope",)
    ),
    **dict.fromkeys(("attestation-request", "attestation", "attestation-result"), ("envelope",)),
    **dict.fromkeys(("attestation-sgx", "attestation-tdx", "attestation-snp"), ("envelope",)),
    **dict.fromkeys(("encrypted-model", "encrypted-update"), ("envelope", "ciphertext")),
    "base-model": ("bytes",),
    "update-arrays": ("bytes",),
    "roll-call": ("roll_call",),
    "exchange": (
        *("attestation-request", "attestation", "round-order", "update", "roll_call"),
        *("model.ciphertext", "arrays.ciphertext"),
    ),
    **dict.fromkeys(("log-checkpoint", "log-announcement", "witness-statement"), ("envelope",)),
    "ledger": ("export",),
    "log": ("checkpoint",),
}
IN_HEX = ("bytes", "ciphertext", "model.ciphertext", "arrays.ciphertext")
LARGE = (
    "exchange",
    "witness-statement",
    "participation-welcome",
    "attestation-sgx",
    "attestation-tdx",
    "attestation-snp",
)
SMALL = tuple(name for name in SEALED if name not in LARGE)
PLACES = [(name, field) for name, fields in SEALED.items() for field in fields]


def value_of(vector: dict[str, Any], field: str) -> str:
    """A field of a vector; ``a.b`` is b within a."""
    outer, _, inner = field.partition(".")
    value: str = vector[outer][inner] if inner else vector[outer]
    return value


def with_value(vector: dict[str, Any], field: str, value: str) -> dict[str, Any]:
    outer, _, inner = field.partition(".")
    return {**vector, outer: {**vector[outer], inner: value} if inner else value}


def size(vector: dict[str, Any], field: str) -> int:
    value = value_of(vector, field)
    return len(value) // 2 if field in IN_HEX else len(value.encode())


def with_byte(vector: dict[str, Any], field: str, position: int, change: int) -> dict[str, Any]:
    """The vector with one byte changed; where that makes no text, with a character beyond ASCII in its place."""
    value = value_of(vector, field)
    data = bytearray(bytes.fromhex(value) if field in IN_HEX else value.encode())
    data[position] ^= change
    return with_value(vector, field, data.hex() if field in IN_HEX else data.decode("latin-1"))


def test_the_verifier_is_small_and_imports_nothing_of_ours() -> None:
    source = PROGRAM.read_text()
    assert len(source.splitlines()) < 300
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= ALONE


@pytest.mark.parametrize("path", sorted(story.VECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_the_verifier_accepts_a_golden_vector(verifier, path) -> None:
    assert holds(verifier, json.loads(path.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_single_byte_of_a_small_vector_counts(verifier, name) -> None:
    vector = read(name)
    for field in SEALED[name]:
        for position in range(size(vector, field)):
            for change in (0x01, 0x20):  # the second one turns a letter into its other case
                assert not holds(verifier, with_byte(vector, field, position, change)), position


@settings(max_examples=400, deadline=None)
@given(place=st.sampled_from(PLACES), where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_changed_byte_anywhere_is_refused(verifier, place, where, change) -> None:
    name, field = place
    vector = read(name)
    assert not holds(verifier, with_byte(vector, field, int(where * size(vector, field)), change))


@settings(max_examples=100, deadline=None)
@given(place=st.sampled_from(PLACES), where=st.floats(0, 1, exclude_max=True), length=st.integers(1, 40))
def test_a_missing_piece_is_refused(verifier, place, where, length) -> None:
    name, field = place
    vector = read(name)
    value = value_of(vector, field)
    position = int(where * len(value))
    shorter = value[:position] + value[position + length :]
    assert not holds(verifier, with_value(vector, field, shorter))


@pytest.mark.parametrize("line", [0, 1])
def test_every_byte_of_a_log_below_its_checkpoint_counts(verifier, line) -> None:
    vector = read("log")
    start = sum(len(each) + 1 for each in vector["lines"].split("\n")[:line])
    for position in range(start, start + len(vector["lines"].split("\n")[line])):
        assert not holds(verifier, with_byte(vector, "lines", position, 1)), position


def test_a_payload_signed_as_another_kind_of_document_is_refused(verifier) -> None:
    health, key = canonical_json(read("health")["payload"]), story.KEYS["clinic-1"].public_hex
    verifier.opened(sealed_by("clinic-1", "health", health).encode(), "health", key)
    with pytest.raises(verifier.Refused, match="payload type"):
        verifier.opened(sealed_by("clinic-1", "enrolment", health).encode(), "health", key)


def test_a_document_has_one_spelling_and_a_largest_size(verifier) -> None:
    assert verifier.parsed(b'{"a":1,"b":[0.5,null,"\\u00fc"]}') == {"a": 1, "b": [0.5, None, "ü"]}
    spellings: tuple[bytes, ...] = (
        *(b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":1,"a":1}', b'{"a":NaN}', b'{"a":1e400}', b'{"a":1.50}', b'{"a":1}\n'),
        *('{"a":"ü"}'.encode(), '{"a":1}'.encode("utf-16"), b"[1]", b"1", b"", b"{" * 100_000),
    )
    for spelling in spellings:
        with pytest.raises(verifier.Refused):
            verifier.refusing(verifier.parsed, spelling)
    longest = b'{"a":"' + b"x" * ((1 << 20) - 8) + b'"}'
    assert verifier.parsed(longest)
    with pytest.raises(verifier.Refused, match="larger"):
        verifier.parsed(longest.replace(b"x", b"xx", 1))


def safetensors(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def one(dtype: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


ARRAYS = {
    "another dtype": safetensors(one(dtype="I32"), bytes(8)),
    "fewer values than the shape has": safetensors(one(shape=(3,)), bytes(8)),
    "a gap at the start": safetensors(one(offsets=(4, 12)), bytes(12)),
    "bytes behind the last tensor": safetensors(one(), bytes(12)),
    "bytes that are missing": safetensors(one(), bytes(4)),
    "not a number": safetensors(one(), b"\x00\x00\xc0\x7f" * 2),
    "infinity": safetensors(one(), b"\x00\x00\x80\x7f" * 2),
    "two tensors on the same bytes": safetensors({**one(), "v": one()["w"]}, bytes(8)),
    "a header beyond the end": (1 << 40).to_bytes(8, "little") + b"{}",
    "nothing": b"",
}


@pytest.mark.parametrize("data", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_that_are_not_dense_finite_float32_are_refused(verifier, data) -> None:
    assert verifier.tensors(safetensors(one(), bytes(8))) == {"w": [2]}
    with pytest.raises(verifier.Refused):
        verifier.refusing(verifier.tensors, data)


ENROLLED = story.enrolments()
OTHER_JOB = resealed(
    "enrolment",
    "clinic-2",
    site_id="clinic-2",
    public_key=story.KEYS["clinic-2"].public_hex,
    job_digest="0" * 64,
).encode()
TWO_NAMES = resealed("enrolment", "clinic-1", site_id="clinic-4").encode()
NOT_ITS_KEY = sealed_by(
    "clinic-1", "enrolment", canonical_json({**read("enrolment")["payload"], "public_key": "0" * 64})
)
ROLL_CALLS = {
    "an entry for another job": roll_call_of(("clinic-1", ENROLLED["clinic-1"]), ("clinic-2", OTHER_JOB)),
    "one key under two names": roll_call_of(("clinic-1", ENROLLED["clinic-1"]), ("clinic-4", TWO_NAMES)),
    "one site twice": roll_call_of(("clinic-1", ENROLLED["clinic-1"]), ("clinic-2", ENROLLED["clinic-1"])),
    "a key that did not sign": roll_call_of(("clinic-1", NOT_ITS_KEY.encode())),
}


@pytest.mark.parametrize("called", ROLL_CALLS.values(), ids=ROLL_CALLS.keys())
def test_a_roll_call_that_counts_somebody_wrongly_is_refused(verifier, called) -> None:
    with pytest.raises(verifier.Refused):
        verifier.refusing(verifier.roll_call, called.encode(), story.JOB.digest())


def chain(change: Callable[[list[dict[str, Any]]], object]) -> str:
    """What whoever holds the ledger can do: other entries under an unbroken chain."""
    entries = [json.loads(link.payload) for link in story.ledger_links()]
    change(entries)
    links = []
    for entry in entries:
        links.append(make_link(links[-1].head if links else None, canonical_json(entry)))
    return write_export(links).decode()


LEDGERS: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "a second founding": lambda entries: entries.insert(1, entries[0]),
    "no founding": lambda entries: entries.pop(0),
    "a second registration": lambda entries: entries.insert(2, entries[1]),
    "a reservation on nothing": lambda entries: entries.pop(1),
    "more than the budget": lambda entries: entries[1].update(budget_pico=1),
    "more than the job's allowance": lambda entries: entries[3].update(allowed_steps=3),
    "one reservation charged twice": lambda entries: entries.insert(5, entries[3]),
    "a job that drew under two keys": lambda entries: entries.insert(5, {**entries[4], "key_mark": "0" * 64}),
    "more steps than were reserved": lambda entries: entries[5]["event"].update(steps=5),
    "less noise than was reserved": lambda entries: entries[5]["event"].update(noise_multiplier=1.0),
    "a commit without a mechanism": lambda entries: entries[5].update(event={"type": "non_private"}),
    "a commit of nothing reserved": lambda entries: entries.pop(3),
    "an unknown entry": lambda entries: entries[2].update(type="refunded"),
    "an event in place of an entry": lambda entries: entries.insert(2, entries[5]["event"]),
    "an unknown field": lambda entries: entries[2].update(note="x"),
}


@pytest.mark.parametrize("change", LEDGERS.values(), ids=LEDGERS.keys())
def test_a_ledger_that_breaks_a_rule_under_an_unbroken_chain_is_refused(verifier, change) -> None:
    assert holds(verifier, {**read("ledger"), "export": chain(lambda entries: None), "head": _first()})
    assert not holds(verifier, {**read("ledger"), "export": chain(change), "head": _first(change)})


def _first(change: Callable[[list[dict[str, Any]]], object] = lambda entries: None) -> dict[str, Any]:
    row = json.loads(chain(change))["entries"][0]
    return {"seq": row["seq"], "hash": row["hash"]}


def test_a_ledger_that_lacks_a_head_that_was_seen_was_rolled_back_unless_a_person_acknowledged_it(verifier) -> None:
    export = read("ledger")["export"].encode()
    acknowledged = json.loads(story.ledger_links()[2].payload)
    verifier.ledger(export, (acknowledged["head_seq"], acknowledged["head_hash"]))
    with pytest.raises(verifier.Refused, match="rolled back"):
        verifier.ledger(export, (5, "0" * 64))


def test_a_ledger_without_its_last_entry_is_refused_and_so_is_one_without_any(verifier) -> None:
    export = json.loads(read("ledger")["export"])
    for entries in (export["entries"][:-1], []):
        with pytest.raises(verifier.Refused):
            verifier.ledger(canonical_json({**export, "entries": entries}))


def test_a_line_behind_the_checkpoint_that_was_torn_is_refused(verifier) -> None:
    vector = read("log")
    assert not holds(verifier, {**vector, "lines": vector["lines"].removesuffix("\n")})


def test_lines_that_were_cut_off_below_a_checkpoint_are_missed(verifier) -> None:
    vector = read("log")
    assert holds(verifier, {**vector, "lines": "\n".join(vector["lines"].split("\n")[:2]) + "\n"})
    assert not holds(verifier, {**vector, "lines": vector["lines"].split("\n")[0] + "\n"})


# --- as a program, on a real run


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_copy_beside_the_specification_verifies_the_vectors(tmp_path) -> None:
    for path in (PROGRAM, ROOT / "docs" / "WIRE.md"):
        shutil.copy(path, tmp_path)
    command = [sys.executable, "-I", tmp_path / PROGRAM.name, "vectors", story.VECTORS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "verified\n"), done.stderr


def test_one_document_and_one_ledger_can_be_looked_at(tmp_path) -> None:
    vector, export = read("health"), tmp_path / "clinic-1.json"
    (tmp_path / "envelope.json").write_text(vector["envelope"])
    shown = program("envelope", "health", tmp_path / "envelope.json", vector["public_key"])
    assert json.loads(shown.stdout.removesuffix("verified\n")) == vector["payload"]
    assert program("envelope", "enrolment", tmp_path / "envelope.json", vector["public_key"]).returncode == 1
    export.write_text(read("ledger")["export"])
    assert program("ledger", export).returncode == 0
    assert "rolled back" in program("ledger", export, f"9:{'0' * 64}").stderr


@pytest.mark.parametrize("arguments", [(), ("vectors",), ("run", "a", "b"), ("unheard-of",), ("vectors", "/nowhere")])
def test_what_is_not_understood_is_not_verified(arguments) -> None:
    done = program(*arguments)
    assert done.returncode == 1
    assert "verified\n" not in done.stdout


@pytest.fixture(scope="module")
def real_run(tmp_path_factory, federation_at) -> Path:
    """Two clinics, two rounds, through the command line. Never to be written to."""
    pytest.importorskip("flwr")
    from tests.aegis.commands.conftest import found_study, invoke

    study = found_study(tmp_path_factory.mktemp("wire"), federation_at)
    job = study.write_job("study-1", rounds=2)
    result = invoke("run", job, "--federation", study.federation, "--out", study.root / "run")
    assert result.exit_code == 0, result.output
    return study.root / "run"


def test_a_real_run_verifies(real_run) -> None:
    done = program("run", real_run)
    assert (done.returncode, done.stdout) == (0, "verified\n"), done.stderr


def _flip(path: Path, position: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def _swap_ledgers(run: Path) -> None:
    one, two = run / "ledger" / "clinic-1.json", run / "ledger" / "clinic-2.json"
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


def _rename_an_envelope(run: Path) -> None:
    first = next((run / "state" / "updates").glob("*.json"))
    first.rename(first.with_name(f"{sha256_hex(b'another')}.json"))


def _rewritten_log(run: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """What whoever holds the coordinator's key can do: another log under an unbroken chain, signed again."""
    lines = [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]
    change(lines)
    (run / "audit.jsonl").unlink()
    log = HashLog(run / "audit.jsonl", clock=lambda: story.NOW)
    for line in lines:
        log.append(**{name: line[name] for name in ("actor", "action", "outcome", "reason", "details")})
    (run / "audit.checkpoint.json").write_bytes(sign_log(log, Signer.from_seed(bytes([7]) * 32), origin_of(run)))
    log.close()


def origin_of(run: Path) -> str:
    digest: str = json.loads((run / "config.json").read_text())["job_digest"]
    return origin_of_run(digest)


def _details(lines: list[dict[str, Any]], action: str, outcome: str) -> dict[str, Any]:
    details: dict[str, Any] = next(x["details"] for x in lines if (x["action"], x["outcome"]) == (action, outcome))
    return details


def _reconfigure(run: Path, **changes: Any) -> None:
    """Another configuration, which the log names: the two agree with each other."""
    data = json.dumps({**json.loads((run / "config.json").read_text()), **changes}).encode()
    (run / "config.json").write_bytes(data)
    _rewritten_log(run, lambda x: _details(x, "configuration", "recorded").update(config=sha256_hex(data)))


def _roll_back(run: Path, keep: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """The ledger of one clinic, without some entries, under an unbroken chain."""
    path = run / "ledger" / "clinic-1.json"
    links: list[Link] = []
    for entry in keep([json.loads(row["payload"]) for row in json.loads(path.read_text())["entries"]]):
        links.append(make_link(links[-1].head if links else None, canonical_json(entry)))
    path.write_bytes(write_export(links))


def _acknowledged(run: Path) -> dict[str, Any]:
    head = json.loads((run / "ledger" / "clinic-1.json").read_text())["head"]
    entry = json.loads(story.ledger_links()[2].payload)
    return {**entry, "head_seq": head["seq"], "head_hash": head["hash"]}


def _replace_key(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["participants"]["clinic-1"] = story.KEYS["clinic-1"].public_hex
    (run / "config.json").write_text(json.dumps(config))


FALSIFIED: dict[str, Callable[[Path], object]] = {
    "another model": lambda run: _flip(run / "model.safetensors"),
    "another line in the log": lambda run: _flip(run / "audit.jsonl", 200),
    "another checkpoint": lambda run: _flip(run / "audit.checkpoint.json"),
    "no checkpoint": lambda run: (run / "audit.checkpoint.json").unlink(),
    "another configuration": lambda run: _flip(run / "config.json", 60),
    "another key for a participant": _replace_key,
    "an envelope less": lambda run: next((run / "state" / "updates").glob("*.json")).unlink(),
    "another envelope": lambda run: _flip(next((run / "state" / "updates").glob("*.json"))),
    "an envelope under another name": _rename_an_envelope,
    "another ledger": lambda run: _flip(run / "ledger" / "clinic-1.json"),
    "the ledger of another site": _swap_ledgers,
    "a ledger that forgot its last entry": lambda run: _roll_back(run, lambda entries: entries[:-1]),
    "a ledger with the commits and another history": lambda run: _roll_back(
        run, lambda entries: [entry for entry in entries if entry["type"] != "content_noted"]
    ),
    "a ledger without a commit, and its head acknowledged": lambda run: _roll_back(
        run, lambda entries: [*entries[:-1], _acknowledged(run)]
    ),
    "a log that names another configuration": lambda run: _rewritten_log(
        run, lambda x: _details(x, "configuration", "recorded").update(config="0" * 64)
    ),
    "a log that names another model": lambda run: _rewritten_log(
        run, lambda x: _details(x, "run", "finished").update(model="0" * 64)
    ),
    "a log that admitted what has no envelope": lambda run: _rewritten_log(
        run, lambda x: _details(x, "admit", "accepted").update(update="0" * 64)
    ),
    "a configuration of another job": lambda run: _reconfigure(run, job_digest="0" * 64),
}


@pytest.mark.parametrize("falsify", FALSIFIED.values(), ids=FALSIFIED.keys())
def test_a_run_that_was_falsified_is_refused(verifier, real_run, tmp_path, falsify) -> None:
    run = Path(shutil.copytree(real_run, tmp_path / "run"))
    falsify(run)
    with pytest.raises(verifier.Refused):
        verifier.refusing(verifier.run, run)
