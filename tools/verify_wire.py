"""Check what travels and what is kept against docs/WIRE.md, with none of the product's own code.

Needs Python 3.11, the package ``cryptography`` and WIRE.md, from whose grammar it takes every document's fields:

    verify_wire.py vectors FOLDER                     the golden vectors, one JSON file each
    verify_wire.py run RUN_FOLDER                     a finished run: log, envelopes, ledgers and model, together
    verify_wire.py envelope DOCUMENT FILE PUBLIC_KEY  an envelope of this document under a key (hex); prints it
    verify_wire.py ledger EXPORT [SEQ:HASH]           a ledger export, and a head that was seen earlier

Exit code 1: refused. Not checked: privacy accounting (epsilon, a ledger's prices), certificates, hardware evidence.
"""

import base64
import hashlib
import json
import math
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HERE = Path(__file__).resolve().parent
SPECIFICATION = next(path for path in (HERE / "WIRE.md", HERE.parent / "docs" / "WIRE.md") if path.exists())
GRAMMAR = SPECIFICATION.read_text(encoding="utf-8").partition("```grammar\n")[2].partition("```")[0]
LINES = [line.split() for line in GRAMMAR.replace("\n ", " ").splitlines()]
PATTERNS = {name: rest[1] for name, *rest in LINES if rest[0] == "~"}
DOCUMENTS = {name: dict(field.split("=", 1) for field in rest) for name, *rest in LINES if rest[0] != "~"}
KINDS: dict[str, tuple[type, ...]] = {"flag": (bool,), "object": (dict,), "number": (int, float)}
MALFORMED = AttributeError, LookupError, TypeError, ValueError, struct.error


class Refused(Exception):
    """What was given is not what the specification asks for."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Refused(why)


def refusing(check: Callable[..., Any], *arguments: Any) -> Any:
    """``check``, with whatever malformed input makes Python raise turned into a refusal."""
    try:
        return check(*arguments)
    except (*MALFORMED, InvalidSignature, OSError, RecursionError) as error:
        raise Refused(repr(error)) from error


def conform(value: Any, name: str) -> Any:
    """``value``, if it is the document ``name``: exactly its fields, each by its rule."""
    fields = DOCUMENTS[name]
    need(type(value) is dict and value.keys() == {field.rstrip("?") for field in fields}, f"{name}: wrong fields")
    for field, rule in fields.items():
        given = value[field.rstrip("?")]
        need((field.endswith("?") and given is None) or fits(given, rule), f"{name}.{field}: not {rule}")
    return value


def fits(value: Any, rule: str) -> bool:
    if rule.endswith("*"):
        return type(value) is list and all(fits(item, rule[:-1]) for item in value)
    if rule.endswith("{}"):
        return type(value) is dict and all(fits(key, "id") and fits(item, rule[:-2]) for key, item in value.items())
    if rule == "event":
        need(value["type"] in ("poisson_sampled_gaussian", "non_private"), "no known privacy event")
        return fits(value, "@" + value["type"])
    if rule.startswith("@"):
        return bool(conform(value, rule[1:]))
    if rule in PATTERNS:
        return type(value) is str and re.fullmatch(PATTERNS[rule], value, re.DOTALL) is not None
    if rule in KINDS:
        return type(value) in KINDS[rule]
    if interval := re.fullmatch(r"([\[(])([-0-9.e]+),([-0-9.e]+)\]", rule):
        low, high = float(interval[2]), float(interval[3])
        return type(value) is float and low <= value <= high and not (interval[1] == "(" and value == low)
    if counted := re.fullmatch(r"(\d+)\.\.(\d+)", rule.replace("count", f"0..{1 << 53}")):
        return type(value) is int and int(counted[1]) <= value <= int(counted[2])
    return type(value) is str and value in rule.split("|")


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def parsed(data: bytes, name: str | None = None, limit: int = 1 << 20) -> Any:
    """One JSON object, canonical: writing what was read gives the same bytes, so no key stands twice and no NaN."""
    need(len(data) <= limit, f"larger than {limit} bytes")
    value = json.loads(data)
    need(type(value) is dict and canonical(value) == data, f"not canonical JSON: {data[:40]!r}")
    return value if name is None else conform(value, name)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def framed(domain: str, *parts: bytes) -> str:
    """SHA-256 over a domain and parts, each behind its length in eight big-endian bytes."""
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in (domain.encode(), *parts)))


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "not the canonical base64 of its bytes")
    return data


def opened(envelope: bytes, name: str, key: str) -> Any:
    """The payload of an envelope of the type for ``name``, signed by ``key`` (hex)."""
    outer = parsed(envelope, "envelope")
    need(outer["payloadType"] == f"application/vnd.aegis.{name}.v1+json", f"not the payload type of {name}")
    need([one["keyid"] for one in outer["signatures"]] == [sha256(bytes.fromhex(key))], "not signed by this key alone")
    kind, payload = outer["payloadType"].encode(), unbase64(outer["payload"])
    encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(unbase64(outer["signatures"][0]["sig"]), encoded)
    return parsed(payload, name)


def roll_call(data: bytes, job_digest: str) -> dict[str, str]:
    """Keys by site: every entry signed by the key that it names, for this job; no site and no key twice."""
    entries = []
    for text in parsed(data, "roll-call", 1 << 24)["entries"]:
        claimed = parsed(unbase64(parsed(text.encode()).get("payload")), "enrolment")
        entries.append(opened(text.encode(), "enrolment", claimed["public_key"]))
        need(claimed["job_digest"] == job_digest, "an entry of the roll-call is for another job")
    keys = {entry["site_id"]: entry["public_key"] for entry in entries}
    need(len(set(keys.values())) == len(entries), "the roll-call names a site or a key twice")
    return keys


def tensors(data: bytes) -> dict[str, list[int]]:
    """Shapes by name of safetensors that hold finite float32 alone, one behind the other, to the last byte."""
    size, end, shapes = int.from_bytes(data[:8], "little"), 0, {}
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        span = [end, end + 4 * math.prod(entry["shape"])]
        need((entry["dtype"], entry["data_offsets"]) == ("F32", span), f"{name} is not dense float32")
        end, shapes[name] = span[1], entry["shape"]
    need(shapes and all(map(math.isfinite, struct.unpack(f"<{end // 4}f", body))), "no values, or not finite ones")
    return shapes


def statement(envelope: bytes, key: str) -> Any:
    """An update statement, and what it can be held against by itself: its evidence's binding, its ledger head."""
    said = opened(envelope, "update", key)
    bound = map(bytes.fromhex, (said["nonce"], key, said["site_id"].encode().hex(), said["job_digest"]))
    if said["evidence"]["kind"] == "simulated":  # other kinds carry the same 32 bytes inside a hardware report
        report = {"report_data": framed("aegis/attestation/report-data/v1", *bound), "simulated": True}
        need(unbase64(said["evidence"]["report"]) == canonical(report), "the evidence covers something else")
    head = {"version": 1, "site_id": said["site_id"], "head": said["ledger_head"]}
    need(opened(said["signed_head"].encode(), "ledger-head", key) == head, "signed_head is not the statement's head")
    return said


def exchange(given: Any) -> Any:
    """An order and its answer, with everything beside them."""
    order = opened(given["order"].encode(), "round-order", given["coordinator_key"])
    said, job_digest = statement(given["update"].encode(), given["site_key"]), sha256(canonical(order["job"]))
    base, arrays, called = bytes.fromhex(given["base"]), bytes.fromhex(given["arrays"]), given["roll_call"].encode()
    shown = opened((order["last_head"] or said["signed_head"]).encode(), "ledger-head", given["site_key"])
    for what, found, stated in (
        ("base model", sha256(base), order["base_model_digest"]),
        ("roll-call", sha256(called), order["roll_call_digest"]),
        ("site of the head that is shown", shown["site_id"], order["site_id"]),
        ("arrays", sha256(arrays), said["update_digest"]),
        ("layout", tensors(arrays), tensors(base)),
        ("enrolled key", roll_call(called, job_digest).get(order["site_id"]), given["site_key"]),
        ("job", (said["job_id"], said["job_digest"]), (order["job"]["job_id"], job_digest)),
        *((field, said[field], order[field]) for field in ("site_id", "round_number", "nonce", "base_model_digest")),
    ):
        need(found == stated, f"the {what} is another one")
    return said


def ledger(data: bytes, seen: tuple[int, str] | None = None) -> tuple[list[Any], set[tuple[int, str]]]:
    """Entries and known heads of an export: an unbroken chain of known entries that keeps the whole-number rules."""
    export = parsed(data, "export", 1 << 30)
    entries, prev = [], "0" * 64
    for seq, row in enumerate(export["entries"]):
        need((row["seq"], row["prev"]) == (seq, prev), f"entry {seq} does not follow the one before it")
        prev = framed("coreason.ledger.entry/1", seq.to_bytes(8, "big"), bytes.fromhex(prev), row["payload"].encode())
        need(row["hash"] == prev, f"entry {seq} has another hash than its content")
        entry = parsed(row["payload"].encode())
        need("time" in DOCUMENTS[entry["type"]], f"entry {seq} is of no known type")
        entries.append(conform(entry, entry["type"]))
    need(entries and export["head"] == {"seq": len(entries) - 1, "hash": prev}, "the head is not the last entry")
    heads = {(row["seq"], row["hash"]) for row in export["entries"]}
    heads |= {(entry["head_seq"], entry["head_hash"]) for entry in entries if entry["type"] == "acknowledged"}
    need(seen is None or seen in heads, "a head that was seen before is not in this history: it was rolled back")
    spending(entries)
    return entries, heads


def spending(entries: list[Any]) -> None:
    """Founded once; every charge within its lineage's budget and its job's allowance; what ran was reserved."""
    need([entry["type"] == "founded" for entry in entries] == [True] + [False] * (len(entries) - 1), "not founded once")
    left: dict[str, int] = {}
    reserved: dict[str, Any] = {}
    steps: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry["type"] == "registered":
            need(entry["registration"]["lineage"] not in left, "a lineage is registered twice")
            left[entry["registration"]["lineage"]] = entry["budget_pico"]
        elif "plan" in entry:
            lineage, job, limit = entry["lineage"], entry["plan"]["job_id"], entry.get("step_limit", 0)
            left[lineage] -= limit * entry.get("step_cost_pico", 0)
            steps[lineage, job] = steps.get((lineage, job), 0) + limit
            need(left[lineage] >= 0 and steps[lineage, job] <= entry.get("allowed_steps", 0), "more than is allowed")
            need(entry["reservation_id"] not in reserved, "a reservation is charged twice")
            reserved[entry["reservation_id"]] = entry
        elif entry["type"] == "committed":
            paid, ran = reserved[entry["reservation_id"]], entry["event"]
            same = all(ran.get(field) == paid["plan"].get(field) for field in ("noise_multiplier", "sample_rate"))
            need(same and ran.get("steps", 0) <= paid.get("step_limit", 0), "another mechanism, or more of it, ran")


def log(data: bytes, checkpoint: bytes, key: str) -> list[Any]:
    """The lines of a log whose chain holds, and whose first lines are the ones that a checkpoint signed."""
    entries, heads = [], ["0" * 64]
    for seq, line in enumerate(data.split(b"\n")[:-1]):
        entries.append(parsed(line, "line"))
        need((entries[-1]["seq"], entries[-1]["prev"]) == (seq, heads[-1]), f"line {seq + 1} does not follow the last")
        heads.append(sha256(line))
    need(data.endswith(b"\n") or not data, "the last line is incomplete")
    signed = opened(checkpoint, "log-checkpoint", key)
    need(signed["size"] < len(heads) and heads[signed["size"]] == signed["head"], "not the log that was signed")
    return entries


def run(folder: Path) -> None:
    """A finished run: every admitted update has its envelope, every one is in its site's ledger where that is here."""
    config, checkpoint = (folder / "config.json").read_bytes(), (folder / "audit.checkpoint.json").read_bytes()
    about = json.loads(config)
    entries = log((folder / "audit.jsonl").read_bytes(), checkpoint, about["coordinator_key"])
    said = {(entry["action"], entry["outcome"]): entry["details"] for entry in entries}
    need(said["configuration", "recorded"]["config"] == sha256(config), "the log names another configuration")
    need(said["run", "finished"]["model"] == sha256((folder / "model.safetensors").read_bytes()), "another model")
    ledgers = {path.stem: ledger(path.read_bytes()) for path in folder.glob("ledger/*.json")}
    sites = {sha256(bytes.fromhex(key)): (site, key) for site, key in about["participants"].items()}
    sealed = set()
    for path in folder.glob("state/updates/*.json"):
        site, key = sites[parsed(path.read_bytes())["signatures"][0]["keyid"]]
        update = statement(path.read_bytes(), key)
        need((update["site_id"], update["job_digest"]) == (site, about["job_digest"]), f"{path.name}: misplaced")
        need(sha256(path.read_bytes()) == path.stem, f"{path.name}: its name is not its digest")
        sealed.add((site, update["round_number"], update["update_digest"]))
        if site in ledgers:
            paid, heads = ledgers[site]
            need((update["ledger_head"]["seq"], update["ledger_head"]["hash"]) in heads, f"{site}: an unknown head")
            released = [(e["update_digest"], e["event"]) for e in paid if e["type"] == "committed"]
            need((update["update_digest"], update["event"]) in released, f"{site}: an update that was never committed")
    accepted = [entry["details"] for entry in entries if (entry["action"], entry["outcome"]) == ("admit", "accepted")]
    need({(said["site"], said["round"], said["update"]) for said in accepted} <= sealed, "an update has no envelope")


VECTORS: dict[str, Callable[[Any], Any]] = {
    "keys": lambda v: all(sha256(bytes.fromhex(key["public_key"])) == key["key_id"] for key in v["keys"].values()),
    "canonical-json": lambda v: all(canonical(case["value"]) == case["bytes"].encode() for case in v["cases"]),
    "digests": lambda v: all(framed(c["domain"], *map(bytes.fromhex, c["parts"])) == c["sha256"] for c in v["cases"]),
    "job": lambda v: sha256(canonical(conform(v["job"], "job"))) == v["sha256"],
    "arrays": lambda v: (tensors(data := bytes.fromhex(v["bytes"])), sha256(data)) == (v["shapes"], v["sha256"]),
    "envelope": lambda v: opened(v["envelope"].encode(), v["document"], v["public_key"]) == v["payload"],
    "roll-call": lambda v: roll_call(v["roll_call"].encode(), v["job_digest"]) == v["public_keys"],
    "exchange": exchange,
    "ledger": lambda v: ledger(v["export"].encode(), (v["head"]["seq"], v["head"]["hash"])),
    "log": lambda v: log(v["lines"].encode(), v["checkpoint"].encode(), v["public_key"]),
}


def vector(given: Any) -> None:
    need(refusing(VECTORS[given["kind"]], given), f"not the {given['kind']} that is stated")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["vectors", folder] if paths := sorted(Path(folder).glob("*.json")):
            for path in paths:
                vector(json.loads(path.read_bytes()))
        case ["run", folder]:
            run(Path(folder))
        case ["envelope", name, path, key]:
            print(json.dumps(opened(Path(path).read_bytes(), name, key), indent=1))
        case ["ledger", path, *seen] if len(seen) <= 1:
            ledger(Path(path).read_bytes(), *((int(head.split(":")[0]), head.split(":")[1]) for head in seen))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        refusing(main, sys.argv[1:])
    except Refused as refusal:
        sys.exit(f"REFUSED: {refusal}")
    print("verified")
