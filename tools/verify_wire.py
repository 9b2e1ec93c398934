"""Check what travels and what is kept against docs/WIRE.md, with none of the product's own code.

Needs Python 3.11, ``cryptography`` 50 or later (whose HPKE it decrypts with), and WIRE.md, for every document's fields:

    verify_wire.py vectors FOLDER                     the golden vectors, one JSON file each
    verify_wire.py run RUN_FOLDER                     a finished run: log, envelopes, ledgers and model, together
    verify_wire.py envelope DOCUMENT FILE PUBLIC_KEY  an envelope of this document under a key (hex); prints it
    verify_wire.py ledger EXPORT [SEQ:HASH]           a ledger export, and a head that was seen earlier

Exit code 1: refused. Not checked: privacy accounting, aggregation, certificates, who signed the hardware's reports.
"""

import hashlib
import json
import math
import re
import struct
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

HERE = Path(__file__).resolve().parent
SPECIFICATION = next(path for path in (HERE / "WIRE.md", HERE.parent / "docs" / "WIRE.md") if path.exists())
GRAMMAR = SPECIFICATION.read_text("utf-8").partition("```grammar\n")[2].partition("```")[0].replace("\n ", " ")
LINES = [line.split() for line in GRAMMAR.splitlines()]
PATTERNS = {name: rest[1] for name, *rest in LINES if rest[0] == "~"}
DOCUMENTS = {name: dict(field.split("=", 1) for field in rest) for name, *rest in LINES if rest[0] != "~"}
canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
KINDS: dict[str, tuple[type, ...]] = {"flag": (bool,), "object": (dict,), "number": (int, float)}
MALFORMED = AttributeError, LookupError, TypeError, ValueError, struct.error, InvalidSignature, InvalidTag
REPORT_DATA_AT = {("sgx", 3): 368, ("tdx", 4): 568, ("tdx", 5): 574, ("snp", 2): 80, ("snp", 3): 80, ("snp", 5): 80}


class Refused(Exception):
    """What was given is not what the specification asks for."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Refused(why)


def refusing(check: Any, *arguments: Any) -> Any:
    """``check``, with whatever malformed input makes Python raise turned into a refusal."""
    try:
        return check(*arguments)
    except (*MALFORMED, OSError, RecursionError) as error:
        raise Refused(repr(error)) from error


def fits(value: Any, rule: str) -> bool:
    """Whether ``value`` keeps a rule of the grammar; a document that does not is refused, and the field named."""
    if row := re.fullmatch(r"(.*)\*(\d*)", rule):
        return type(value) is list and len(value) <= int(row[2] or 1 << 24) and all(fits(x, row[1]) for x in value)
    if rule.startswith("@") or rule == "event":
        fields = DOCUMENTS[rule[1:] if rule != "event" else f"event-{value['type']}"]
        need(type(value) is dict and value.keys() == {field.rstrip("?") for field in fields}, f"{rule}: wrong fields")
        for field, inner in fields.items():
            given = value[field.rstrip("?")]
            need((field[-1] == "?" and given is None) or fits(given, inner), f"{rule}.{field}: not {inner}")
        return True
    if rule.endswith("{}"):
        return type(value) is dict and all(fits(key, "id") and fits(item, rule[:-2]) for key, item in value.items())
    if rule in KINDS:
        return type(value) in KINDS[rule]
    if bounds := re.fullmatch(r"([\[(]?)([-0-9.e]+?)(,|\.\.)([-0-9.e]+)\]?", rule.replace("count", f"0..{1 << 53}")):
        low, high, kind = float(bounds[2]), float(bounds[4]), float if bounds[3] == "," else int
        return type(value) is kind and low <= value <= high and not (bounds[1] == "(" and value == low)
    return type(value) is str and re.fullmatch(PATTERNS.get(rule, rule), value, re.DOTALL) is not None


def parsed(data: bytes, rule: str = "object", limit: int = 1 << 20) -> Any:
    """One JSON object, canonical: writing what was read gives the same bytes, so no key stands twice and no NaN."""
    need(len(data) <= limit, f"larger than {limit} bytes")
    need(fits(value := json.loads(data), rule) and canonical(value).encode() == data, f"not canonical: {data[:40]!r}")
    return value


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def frame(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def prove(evidence: Any, role: str, subject: str, *about: str) -> None:
    """Every report covers nonce, both keys and job (hex) of who shows it; who signed the reports is not looked at."""
    gpus, kind, report = evidence["gpus"], evidence["cpu"]["kind"], b64decode(evidence["cpu"]["report"])
    nonce, public_key, kem_key, job_digest = map(bytes.fromhex, about)
    hashed = [hashlib.sha256(each).digest() for each in (public_key, kem_key, canonical(gpus).encode())]
    context = frame(b"aegis/attestation/" + role.encode(), b"1", nonce, *hashed[:2], subject.encode(), job_digest)
    data, asked = hashlib.sha512(b"cpu" + context + hashed[2]).digest(), hashlib.sha256(b"gpu" + context).digest()
    form = canonical({"report_data": data.hex(), "simulated": True}).encode()
    at = REPORT_DATA_AT.get((kind, report[0]), len(report))
    need(report == form and not gpus if kind == "simulated" else report[at : at + 64] == data, "it covers other data")
    need(all(b64decode(gpu["report"])[4:36] == asked for gpu in gpus), "a GPU's report covers another nonce")


def decrypted(given: Any, public_key: str, purpose: str, envelope: str) -> bytes:
    """What was encrypted (HPKE) to a key whose private half everybody knows, to travel beside this envelope."""
    key = x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(given["TEST_KEY"]))
    need(key.public_key().public_bytes_raw().hex() == public_key, "encrypted to another key")
    info = frame(b"aegis/hpke/v1", purpose.encode(), envelope.encode())
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM).decrypt(bytes.fromhex(given["ciphertext"]), key, info)


def opened(envelope: bytes, name: str, key: str) -> Any:
    """The payload of an envelope of the type for ``name``, signed by ``key`` (hex), with evidence and head its own."""
    outer = parsed(envelope, "@envelope")
    need(outer["payloadType"] == f"application/vnd.aegis.{name}.v1+json", f"not the payload type of {name}")
    need([one["keyid"] for one in outer["signatures"]] == [sha256(bytes.fromhex(key))], "not signed by this key alone")
    kind, payload = outer["payloadType"].encode(), b64decode(outer["payload"])
    pae, signature = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload), outer["signatures"][0]["sig"]
    ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(b64decode(signature), pae)
    said = parsed(payload, f"@{name}")
    if name in ("attestation", "update"):
        prove(said["evidence"], "site", said["site_id"], said["nonce"], key, said["kem_key"], said["job_digest"])
    if name == "round-order" and (own := said["coordinator"])["evidence"] is not None:
        covered = own["challenge"], key, own["kem_key"], sha256(canonical(said["job"]).encode())
        prove(own["evidence"], "coordinator", "coordinator", *covered)
    if name == "update":
        head = {"version": 1, "site_id": said["site_id"], "head": said["ledger_head"]}
        need(opened(said["signed_head"].encode(), "ledger-head", key) == head, "signed_head is another one")
    return said


def roll_call(data: bytes, job_digest: str) -> dict[str, str]:
    """Keys by site: every entry signed by the key that it names, for this job; no site and no key twice."""
    texts = [text.encode() for text in parsed(data, "@roll-call", 1 << 24)["entries"]]
    claimed = [parsed(b64decode(parsed(text, "@envelope")["payload"]), "@enrolment")["public_key"] for text in texts]
    entries = [opened(text, "enrolment", key) for text, key in zip(texts, claimed, strict=True)]
    keys = {entry["site_id"]: entry["public_key"] for entry in entries if entry["job_digest"] == job_digest}
    need(len(set(keys.values())) == len(entries), "the roll-call names a site or a key twice, or another job")
    return keys


def tensors(data: bytes, corrected: bool = False) -> dict[str, list[int]]:
    """Shapes by name of safetensors of finite float32, to the last byte; with the names of its corrections, if so."""
    size, end, shapes = int.from_bytes(data[:8], "little"), 0, {}
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        span = [end, end + 4 * math.prod(entry["shape"])]
        need((entry["dtype"], entry["data_offsets"]) == ("F32", span), f"{name} is not dense float32")
        end, shapes[name] = span[1], entry["shape"]
    need(shapes and all(map(math.isfinite, struct.unpack(f"<{end // 4}f", body))), "no values, or not finite ones")
    return {kind + name: shape for kind in ("", "correction/")[: 1 + corrected] for name, shape in shapes.items()}


def exchange(given: Any) -> Any:
    """A challenge and an order, the answer to each, and what travelled beside them: all about the same."""
    coordinator, site, called = given["coordinator_key"], given["site_key"], given["roll_call"].encode()
    asked, order = (opened(given[n].encode(), n, coordinator) for n in ("attestation-request", "round-order"))
    shown, said = (opened(given[n].encode(), n, site) for n in ("attestation", "update"))
    result = opened(order["attestation"].encode(), "attestation-result", coordinator)
    head = opened((order["last_head"] or said["signed_head"]).encode(), "ledger-head", site)
    own, job = order["coordinator"], sha256(canonical(order["job"]).encode())
    base = decrypted(given["model"], result["kem_key"], "model", given["round-order"])
    arrays = decrypted(given["arrays"], own["kem_key"], "update", given["update"])
    found = {"job_id": order["job"]["job_id"], "job_digest": job, "public_key": site, "site_id": result["subject"]}
    digests = {"base_model_digest": sha256(base), "update_digest": sha256(arrays), "roll_call_digest": sha256(called)}
    for names, documents in (
        ("site_id job_id job_digest public_key kem_key", (asked, shown, result, order, said, head, found)),
        ("nonce kind challenge", (asked, shown, shown["evidence"]["cpu"], result, own)),
        ("round_number nonce base_model_digest update_digest roll_call_digest", (order, said, digests)),
    ):
        for name in names.split():
            need(len({each[name] for each in documents if name in each}) == 1, f"more than one {name}")
    need(roll_call(called, job).get(order["site_id"]) == site, "the site is not enrolled with its key")
    need(tensors(base) == tensors(arrays, order["job"]["strategy"] == "SCAFFOLD"), "not of the model's layout")
    simulated = (result["kind"] == "simulated") == (result["provenance"] == "simulated") == (not result["measurement"])
    return simulated and order["issued_at"] < result["expires_at"] <= result["appraised_at"] + 600


def ledger(data: bytes, seen: tuple[int, str] | None = None) -> tuple[list[Any], set[tuple[int, str]]]:
    """Entries and known heads of an export: an unbroken chain of known entries that keeps the whole-number rules."""
    export = parsed(data, "@export", 1 << 30)
    entries, prev = [], "0" * 64
    for seq, row in enumerate(export["entries"]):
        number, text = seq.to_bytes(8, "big"), row["payload"].encode()
        made = sha256(frame(b"coreason.ledger.entry/1", number, bytes.fromhex(prev), text))
        need((row["seq"], row["prev"], row["hash"]) == (seq, prev, made), f"entry {seq} does not follow the last")
        entries.append(parsed(text))
        rule, prev = entries[-1]["type"], made
        need("time" in DOCUMENTS[rule] and fits(entries[-1], f"@{rule}"), f"entry {seq} is of no known type")
        need((rule == "founded") == (seq == 0), "not founded once, and first")
    need(entries and export["head"] == {"seq": len(entries) - 1, "hash": prev}, "the head is not the last entry")
    heads = {(row["seq"], row["hash"]) for row in export["entries"]}
    heads |= {(entry["head_seq"], entry["head_hash"]) for entry in entries if entry["type"] == "acknowledged"}
    need(seen is None or seen in heads, "a head that was seen before is not in this history: it was rolled back")
    spending(entries)
    return entries, heads


def spending(entries: list[Any]) -> None:
    """Every charge within its lineage's budget and its job's allowance; what ran was reserved."""
    left, steps, keys, reserved = dict[str, int](), dict[Any, int](), dict[Any, str](), dict[str, Any]()
    for entry in entries:
        if entry["type"] == "registered":
            need(entry["registration"]["lineage"] not in left, "a lineage is registered twice")
            left[entry["registration"]["lineage"]] = entry["budget_pico"]
        elif entry["type"] == "content_noted":
            need(keys.setdefault(entry["job_id"], entry["key_mark"]) == entry["key_mark"], "a job drew under two keys")
        elif "plan" in entry:
            lineage, job, limit = entry["lineage"], entry["plan"]["job_id"], entry.get("step_limit", 0)
            left[lineage] -= limit * entry.get("step_cost_pico", 0)
            steps[lineage, job] = steps.get((lineage, job), 0) + limit
            need(left[lineage] >= 0 and steps[lineage, job] <= entry.get("allowed_steps", 0), "more than is allowed")
            need(reserved.setdefault(entry["reservation_id"], entry) is entry, "a reservation is charged twice")
        elif entry["type"] == "committed":
            paid, ran = reserved[entry["reservation_id"]], entry["event"]
            same = all(ran.get(field) == paid["plan"].get(field) for field in ("noise_multiplier", "sample_rate"))
            need(same and ran.get("steps", 0) <= paid.get("step_limit", 0), "another mechanism, or more of it, ran")


def log(data: bytes, checkpoint: bytes, key: str) -> list[Any]:
    """The lines of a log whose chain holds, and whose first lines are the ones that a checkpoint signed."""
    *lines, rest = data.split(b"\n")
    entries, heads = [parsed(line, "@line") for line in lines], ["0" * 64, *map(sha256, lines)]
    for seq, entry in enumerate(entries):
        need((entry["seq"], entry["prev"]) == (seq, heads[seq]), f"line {seq + 1} does not follow the last")
    signed = opened(checkpoint, "log-checkpoint", key)
    need(not rest and heads[signed["size"] :][:1] == [signed["head"]], "not the log that was signed, or not whole")
    return entries


def run(folder: Path) -> None:
    """A finished run: every admitted update has its envelope, every one is in its site's ledger where that is here."""
    listed = parsed(manifest := (folder / "manifest.json").read_bytes(), "@manifest", 1 << 30)["files"]
    files = {name: (folder / name).read_bytes() for name in listed}
    need(listed == {name: sha256(data) for name, data in files.items()}, "a file is not the one that was signed")
    about = json.loads(files["config.json"])
    signed = opened((folder / "manifest.dsse").read_bytes(), "run-manifest", about["coordinator_key"])
    need((signed["job_digest"], signed["manifest"]) == (about["job_digest"], sha256(manifest)), "another manifest")
    entries = log(files["audit.jsonl"], files["audit.checkpoint.json"], about["coordinator_key"])
    said = {(entry["action"], entry["outcome"]): entry["details"] for entry in entries}
    named = said["configuration", "recorded"]["config"], said["run", "finished"]["model"]
    need(named == (listed["config.json"], listed["model.safetensors"]), "the log names another configuration or model")
    ledgers = {path.stem: ledger(path.read_bytes()) for path in folder.glob("ledger/*.json")}
    for site in ledgers.keys() & about["participants"].keys():
        signed = opened((folder / f"ledger/{site}.dsse").read_bytes(), "ledger-export", about["participants"][site])
        export = sha256((folder / f"ledger/{site}.json").read_bytes())
        need(signed["export_digest"] == export, f"{site}: it signed another ledger")
    sites, sealed = {sha256(bytes.fromhex(key)): (site, key) for site, key in about["participants"].items()}, set[Any]()
    for path in folder.glob("state/updates/*.json"):
        site, key = sites[parsed(path.read_bytes())["signatures"][0]["keyid"]]
        update = opened(path.read_bytes(), "update", key)
        need((update["site_id"], update["job_digest"]) == (site, about["job_digest"]), f"{path.name}: misplaced")
        sealed.add((site, update["round_number"], update["update_digest"]))
        if site in ledgers:
            paid, heads = ledgers[site]
            need((update["ledger_head"]["seq"], update["ledger_head"]["hash"]) in heads, f"{site}: an unknown head")
            released = [(e["update_digest"], e["event"]) for e in paid if e["type"] == "committed"]
            need((update["update_digest"], update["event"]) in released, f"{site}: an update that was never committed")
    accepted = [entry["details"] for entry in entries if (entry["action"], entry["outcome"]) == ("admit", "accepted")]
    need({(said["site"], said["round"], said["update"]) for said in accepted} <= sealed, "an update has no envelope")


VECTORS: dict[str, Any] = {
    "keys": lambda v: all(sha256(bytes.fromhex(key["public_key"])) == key["key_id"] for key in v["keys"].values()),
    "canonical-json": lambda v: all(canonical(case["value"]) == case["bytes"] for case in v["cases"]),
    "digests": lambda v: all(sha256(frame(*map(bytes.fromhex, c["parts"]))) == c["sha256"] for c in v["cases"]),
    "job": lambda v: fits(v["job"], "@job") and sha256(canonical(v["job"]).encode()) == v["sha256"],
    "arrays": lambda v: (tensors(data := bytes.fromhex(v["bytes"])), sha256(data)) == (v["shapes"], v["sha256"]),
    "envelope": lambda v: opened(v["envelope"].encode(), v["document"], v["public_key"]) == v["payload"],
    "roll-call": lambda v: roll_call(v["roll_call"].encode(), v["job_digest"]) == v["public_keys"],
    "encrypted": lambda v: decrypted(v, v["public_key"], v["purpose"], v["envelope"]).hex() == v["plaintext"],
    "exchange": exchange,
    "ledger": lambda v: ledger(v["export"].encode(), (v["head"]["seq"], v["head"]["hash"])),
    "log": lambda v: log(v["lines"].encode(), v["checkpoint"].encode(), v["public_key"]),
}


def main(arguments: list[str]) -> None:
    match arguments:
        case ["vectors", folder] if paths := sorted(Path(folder).glob("*.json")):
            for path in paths:
                need(VECTORS[(given := json.loads(path.read_bytes()))["kind"]](given), f"{path.name}: something else")
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
