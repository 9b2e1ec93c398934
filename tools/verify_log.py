"""Check a coordinator's log against what sites were shown of it (docs/WIRE.md), with none of the product's own code.

Needs Python 3.11 and ``cryptography``. The fields of documents are for verify_wire.py; here: signatures, chain, Merkle
tree (RFC 9162), consistency proofs, and whether every checkpoint that a site holds is one of this log.

    verify_log.py vectors FOLDER                    the golden vectors that tell of logs
    verify_log.py run RUN_FOLDER                    log and checkpoint of a run, and what sites signed of it there
    verify_log.py witness RUN_FOLDER FILE KEY       a run's log against a site's statement, under its key (hex)

Exit code 1: refused.
"""

import hashlib
import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MALFORMED = AttributeError, LookupError, TypeError, ValueError, OSError, RecursionError, InvalidSignature


class Refused(Exception):
    """What was given is not what the specification asks for."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Refused(why)


def refusing(check: Any, *arguments: Any) -> Any:
    """``check``, with whatever malformed input makes Python raise turned into a refusal."""
    try:
        return check(*arguments)
    except MALFORMED as error:
        raise Refused(repr(error)) from error


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def opened(envelope: str, name: str, key: str) -> Any:
    """The payload of a DSSE envelope of the type for ``name`` with one signature, by ``key`` (hex)."""
    outer, public = json.loads(envelope), bytes.fromhex(key)
    kind, payload = outer["payloadType"].encode(), b64decode(outer["payload"], validate=True)
    need(kind.decode() == f"application/vnd.aegis.{name}.v1+json", f"not the payload type of {name}")
    need([one["keyid"] for one in outer["signatures"]] == [sha256(public).hex()], "not signed by this key alone")
    signature = b64decode(outer["signatures"][0]["sig"], validate=True)
    encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    Ed25519PublicKey.from_public_bytes(public).verify(signature, encoded)
    return json.loads(payload)


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right)


def split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def tree(lines: list[bytes]) -> bytes:
    """The root over these lines: RFC 9162, section 2.1.1."""
    if len(lines) < 2:
        return sha256(b"\x00" + lines[0] if lines else b"")
    return node(tree(lines[: split(len(lines))]), tree(lines[split(len(lines)) :]))


def grown(older: int, size: int, path: list[bytes], start: bytes | None) -> tuple[bytes, bytes]:
    """Older and newer root that a proof shows, used up from its end: section 2.1.4.1, read backwards."""
    if older == size:
        same = path.pop() if start is None else start
        return same, same
    cut, other = split(size), path.pop()
    if older <= cut:
        old, new = grown(older, cut, path, start)
        return old, node(new, other)
    old, new = grown(older - cut, size - cut, path, None)
    return node(other, old), node(other, new)


def continues(older: Any, newer: Any, hashes: list[str]) -> bool:
    """Whether the log of the older size and root begins the log of the newer ones."""
    path, roots = [bytes.fromhex(each) for each in hashes], tuple(bytes.fromhex(one["root"]) for one in (older, newer))
    need(0 <= older["size"] <= newer["size"], "the older log is longer")
    shown = grown(older["size"], newer["size"], path, roots[0]) if older["size"] else (tree([]), roots[1])
    return shown == roots and not path


def exchange(given: Any) -> bool:
    """The order shows a log that continues what the site had seen, and the site says that it saw it."""
    order, key = opened(given["round-order"], "round-order", given["coordinator_key"]), given["coordinator_key"]
    before, after = (opened(given[name], name, given["site_key"])["log_seen"] for name in ("attestation", "update"))
    job = json.dumps(order["job"], sort_keys=True, separators=(",", ":")).encode()
    shown, proof = opened(order["log"], "log-checkpoint", key), order["log_proof"]
    need(shown["origin"] == f"aegis/run/{sha256(job).hex()}", "the checkpoint of another run's log")
    need(after == {"size": shown["size"], "root": shown["root"]}, "the site says that it saw another log")
    older = before or {"size": 0, "root": tree([]).hex()}
    return bool(proof["since"] == older["size"] and continues(older, shown, proof["hashes"]))


def log(lines: list[bytes], at: Any) -> None:
    """The first lines of a log are an unbroken chain, and those of a checkpoint."""
    need(at["size"] <= len(lines), f"a checkpoint of {at['size']} lines, of which {len(lines)} are left")
    heads = ["0" * 64, *(sha256(line).hex() for line in lines)]
    need(all(json.loads(line)["prev"] == head for line, head in zip(lines, heads, strict=False)), "a broken chain")
    same = heads[at["size"]] == at["head"] and tree(lines[: at["size"]]).hex() == at["root"]
    need(same, f"the first {at['size']} lines are not those that were signed: the log was written anew")


def witnessed(lines: list[bytes], statement: Any, origin: str, key: str) -> int:
    """Every checkpoint of this log that a site holds or refused is one of this log; returns how many there are."""
    found = 0
    for kept in statement["logs"]:
        if (kept["origin"], kept["coordinator_key"]) != (origin, key):
            continue
        pairs = [(one["held"], one["shown"]) for one in kept["refused"]]
        pairs += [(one["held"], one["taken"]) for one in kept["abandoned"]]
        for text in [kept["last"], *(each for pair in pairs for each in pair)]:
            at, found = opened(text, "log-checkpoint", key), found + 1
            need(at["origin"] == origin, "the checkpoint of another log")
            log(lines, at)
    return found


def run(folder: Path, file: Path | None = None, key: str = "") -> None:
    """Log and checkpoint of a run, a site's statement, and what sites signed with the updates that are there."""
    about = json.loads((folder / "config.json").read_bytes())
    *lines, rest = (folder / "audit.jsonl").read_bytes().split(b"\n")
    need(not rest, "the last line is incomplete")
    origin, coordinator = f"aegis/run/{about['job_digest']}", about["coordinator_key"]
    last = opened((folder / "audit.checkpoint.json").read_text(), "log-checkpoint", coordinator)
    need((last["origin"], last["size"]) == (origin, len(lines)), "the checkpoint is not of this whole log")
    log(lines, last)
    if file is not None:
        statement = opened(file.read_text(), "witness-statement", key)
        need(key in about["participants"].values(), "the statement of somebody who took no part")
        need(witnessed(lines, statement, origin, coordinator), "the site was never shown a log of this run")
    keys = {sha256(bytes.fromhex(key)).hex(): key for key in about["participants"].values()}
    for path in folder.glob("state/updates/*.json"):
        text = path.read_text()
        seen = opened(text, "update", keys[json.loads(text)["signatures"][0]["keyid"]])["log_seen"]
        same = seen["size"] <= len(lines) and tree(lines[: seen["size"]]).hex() == seen["root"]
        need(same, f"{path.name}: its site saw another log")


def vector(given: Any) -> object:
    match given["kind"]:
        case "exchange":
            return exchange(given)
        case "log":
            signed = opened(given["checkpoint"], "log-checkpoint", given["public_key"])
            log(given["lines"].encode().split(b"\n")[:-1], signed)
            lines, cases = [line.encode() for line in given["proofs"]["lines"]], given["proofs"]["cases"]
            known = [{"size": size, "root": tree(lines[:size]).hex()} for size in range(len(lines) + 1)]
            return all(
                continues({"size": c["older"], "root": c["older_root"]}, c, c["hashes"])
                and (known[c["older"]]["root"], known[c["size"]]["root"]) == (c["older_root"], c["root"])
                for c in cases
            )
    return True  # tells nothing of logs


def main(arguments: list[str]) -> None:
    match arguments:
        case ["vectors", folder] if paths := sorted(Path(folder).glob("*.json")):
            for path in paths:
                need(vector(json.loads(path.read_bytes())), f"{path.name}: something else")
        case ["run", folder]:
            run(Path(folder))
        case ["witness", folder, file, key]:
            run(Path(folder), Path(file), key)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        refusing(main, sys.argv[1:])
    except Refused as refusal:
        sys.exit(f"REFUSED: {refusal}")
    print("verified")
