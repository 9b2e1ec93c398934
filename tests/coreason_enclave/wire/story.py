"""One round of one job, told with fixed keys, times and numbers: what the golden vectors are made from.

``python -m tests.coreason_enclave.wire.story`` writes the vectors anew. A difference is a change of the wire: it needs
a new version of the document, an entry in the changelog, and new vectors beside the old ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aegis.runs.manifest import MANIFEST_TYPE, FileList, ManifestStatement
from coreason_enclave.accounting.events import PoissonSampledGaussian, event_to_dict
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Binding, Role
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.attestation.evidence import CpuKind, Evidence
from coreason_enclave.attestation.results import seal_result
from coreason_enclave.crypto.encoding import canonical_json, digest, sha256_hex
from coreason_enclave.crypto.encryption import KemKey, info_for
from coreason_enclave.crypto.envelope import KeyRing, open_envelope, seal
from coreason_enclave.crypto.hash_log import HashLog, tree_of
from coreason_enclave.crypto.merkle import MerkleTree, leaf_hash
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.ledger.chain import Link, make_link
from coreason_enclave.ledger.entries import Acknowledged, Committed, ContentNoted, Entry, Founded, Registered, Reserved
from coreason_enclave.ledger.export import write_export
from coreason_enclave.ledger.records import LineageCaps, LineageRegistration, NoiseSource, RoundPlan
from coreason_enclave.ledger.rules import reservation_id
from coreason_enclave.ledger.signed_heads import seal_export, seal_head
from coreason_enclave.schemas import AttestationReport, FederationJob, NeighboringRelation, PrivacyUnit, Profile
from coreason_enclave.wire.checkpoints import (
    ANNOUNCEMENT_TYPE,
    CHECKPOINT_TYPE,
    AbandonedLog,
    LogAnnouncement,
    LogCheckpoint,
    LogProof,
    LogSeen,
    RefusedLog,
    WitnessedLog,
    WitnessStatement,
    origin_of_run,
    seal_witness,
    sign_log,
)
from coreason_enclave.wire.documents import (
    ATTESTATION_REQUEST_TYPE,
    ATTESTATION_TYPE,
    ENROLMENT_TYPE,
    HEALTH_TYPE,
    INVITATION_TYPE,
    ORDER_TYPE,
    UPDATE_TYPE,
    AttestationRequest,
    CoordinatorIdentity,
    Enrolment,
    FreeBudget,
    HealthStatement,
    JobInvitation,
    LedgerHeadStatement,
    RoundOrder,
    SiteAttestation,
    UpdateStatement,
)
from coreason_enclave.wire.registration import RegistrationGrant, RegistrationRequest, seal_grant, seal_request
from coreason_enclave.wire.roll_call import encode_roll_call
from coreason_enclave.wire.updates import encode_arrays, layout_of
from tests.coreason_enclave.wire.made_once import attest_once, attested, ciphertext, encrypt_once

VECTORS = Path(__file__).parent / "vectors"
CERTIFICATES = VECTORS / "certificates"
"""Made once: the signatures of an ECDSA key differ each time."""
ENCRYPTED = VECTORS / "encrypted"
"""Made once for each envelope: HPKE takes a fresh key each time. Hex."""
EVIDENCE = VECTORS / "evidence"
"""Made once, by hosts of this repository's own vendors: their signatures differ each time, too."""

NOW = 1_800_000_000
MODEL = "model.safetensors"
SITES = ("clinic-1", "clinic-2", "clinic-3")
PROFILE = Profile.DEVELOPMENT
NONCE = sha256_hex(b"TEST NONCE")
CHALLENGE, SITES_CHALLENGE = sha256_hex(b"TEST CHALLENGE to a site"), sha256_hex(b"TEST CHALLENGE to a coordinator")
HARDWARE = {CpuKind.SGX: (), CpuKind.TDX: ("",), CpuKind.SNP: ()}
"""Hosts that show evidence, and their GPUs as :mod:`tests.coreason_enclave.attestation.appraisal.hosts` calls them."""


def known_key(name: str) -> Signer:
    """A key that everybody knows: its seed is the SHA-256 of a sentence."""
    return Signer.from_seed(_seed(name))


def _seed(name: str) -> bytes:
    return hashlib.sha256(f"TEST KEY of {name}, never to be used".encode()).digest()


def known_kem_key(name: str) -> KemKey:
    """A key to be encrypted to whose private half everybody knows."""
    return KemKey(X25519PrivateKey.from_private_bytes(_seed(f"{name} to be encrypted to")))


COORDINATOR = known_key("coordinator")
KEM_KEYS = {name: known_kem_key(name) for name in ("coordinator", "clinic-1")}
KEYS = {site: known_key(site) for site in SITES}

JOB = FederationJob.model_validate(
    {
        "job_id": "wire-example",
        "min_clients": 3,
        "rounds": 2,
        "strategy": "FED_AVG",
        "privacy": {
            "mechanism": "DP_SGD",
            "target_epsilon": 3.0,
            "noise_multiplier": 2.0,
            "max_grad_norm": 1.0,
            "sample_rate": 0.05,
            "delta": 1e-5,
            "unit": "person",
        },
        "dataset_id": "clinic/visits",
        "model_arch": "LogisticRegression",
        "model_args": {"in_features": 3},
        "aggregator": "trimmed_mean",
        "num_byzantine": 1,
        "cohort_size": 3,
        "local_steps": 4,
        "learning_rate": 0.1,
        "momentum": 0.8,
        "max_update_norm": 100.0,
        "round_deadline_s": 600.0,
        "straggler_grace_s": 30.0,
    }
)
BASE = {"linear.bias": np.zeros(1, np.float32), "linear.weight": np.zeros((1, 3), np.float32)}
UPDATE = {
    "linear.bias": np.array([0.25], np.float32),
    "linear.weight": np.array([[-1.5, 3.0, 2.0**-149]], np.float32),  # the last one is the smallest float32 above 0
}
EVENT = PoissonSampledGaussian(2.0, 0.05, 4)


def ledger_links() -> list[Link]:
    """A ledger from its founding to the round's commit. Numbers that accounting derives stand here as they came out."""
    lineage = "clinic-1/visits"
    registration = LineageRegistration(
        lineage=lineage,
        unit=PrivacyUnit.PERSON,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        nominal_units=2000,
        public=False,
        caps=LineageCaps(epsilon=5.0, delta=1e-5, job_epsilon=3.0, job_delta=1e-5),
        filter_order=5,
    )
    binding = digest(
        "aegis/reservation/v1",
        bytes.fromhex(JOB.digest()),
        (1).to_bytes(8, "big"),
        bytes.fromhex(sha256_hex(encode_arrays(BASE))),
    ).hex()
    plan = RoundPlan(
        job_id=JOB.job_id,
        job_digest=JOB.digest(),
        round_number=1,
        unit=PrivacyUnit.PERSON,
        noise_multiplier=2.0,
        sample_rate=0.05,
        steps=4,
        total_steps=8,
        target_epsilon=3.0,
        delta=1e-5,
        noise_source=NoiseSource.SITE_KEYSTREAM,
    )
    name = reservation_id(lineage, plan, binding)
    entries: list[Entry] = [
        Founded(time=NOW - 9, ledger_id=sha256_hex(b"TEST LEDGER"), durable=True),
        Registered(time=NOW - 8, registration=registration, budget_pico=2_747_271_663_180),
        Acknowledged(
            time=NOW - 6, head_seq=41, head_hash=sha256_hex(b"TEST HEAD"), by="A. Person", why="the disk was restored"
        ),
        Reserved(
            time=NOW + 1,
            lineage=lineage,
            reservation_id=name,
            binding=binding,
            plan=plan,
            step_limit=4,
            allowed_steps=8,
            step_cost_pico=1_856_807_458,
        ),
        ContentNoted(
            time=NOW + 1,
            lineage=lineage,
            job_id=JOB.job_id,
            round_number=1,
            content_mark=sha256_hex(b"TEST CONTENT MARK"),
            key_mark=sha256_hex(b"TEST KEY MARK"),
        ),
        Committed(
            time=NOW + 2,
            lineage=lineage,
            job_id=JOB.job_id,
            round_number=1,
            reservation_id=name,
            event=EVENT,
            update_digest=sha256_hex(encode_arrays(UPDATE)),
        ),
    ]
    links: list[Link] = []
    for entry in entries:
        links.append(make_link(links[-1].head if links else None, entry.canonical()))
    return links


def enrolments() -> dict[str, bytes]:
    """Each site's enrolment envelope."""
    return {
        site: seal(
            ENROLMENT_TYPE,
            Enrolment(
                profile=PROFILE,
                site_id=site,
                public_key=key.public_hex,
                job_id=JOB.job_id,
                job_digest=JOB.digest(),
                enrolled_at=NOW - 60,
            ).canonical(),
            key,
        )
        for site, key in KEYS.items()
    }


def invitation() -> bytes:
    document = JobInvitation(
        profile=PROFILE, job=JOB, site_id="clinic-1", nonce=NONCE, issued_at=NOW - 90, expires_at=NOW + 510
    )
    return seal(INVITATION_TYPE, document.canonical(), COORDINATOR)


def attestation_request() -> bytes:
    document = AttestationRequest(
        profile=PROFILE,
        site_id="clinic-1",
        job_id=JOB.job_id,
        job_digest=JOB.digest(),
        nonce=CHALLENGE,
        issued_at=NOW - 20,
        expires_at=NOW + 100,
    )
    return seal(ATTESTATION_REQUEST_TYPE, document.canonical(), COORDINATOR)


def site_binding(nonce: str) -> Binding:
    """What evidence of clinic-1 is bound to."""
    key, kem_key = KEYS["clinic-1"].public_hex, KEM_KEYS["clinic-1"].public_hex
    return Binding(Role.SITE, nonce, key, kem_key, "clinic-1", JOB.digest())


def coordinator_binding() -> Binding:
    """What the coordinator's evidence is bound to."""
    key, kem_key = COORDINATOR.public_hex, KEM_KEYS["coordinator"].public_hex
    return Binding(Role.COORDINATOR, SITES_CHALLENGE, key, kem_key, "coordinator", JOB.digest())


def _simulated(binding: Binding) -> Evidence:
    return SimulatedAttester().produce(binding.context())


def attestation(evidence: Evidence | None = None) -> bytes:
    shown = _simulated(site_binding(CHALLENGE)) if evidence is None else evidence
    document = SiteAttestation(
        site_id="clinic-1",
        public_key=KEYS["clinic-1"].public_hex,
        kem_key=KEM_KEYS["clinic-1"].public_hex,
        job_id=JOB.job_id,
        job_digest=JOB.digest(),
        nonce=CHALLENGE,
        evidence=shown.model_dump(mode="json"),
        challenge=SITES_CHALLENGE,
        attested_at=NOW - 15,
        log_seen=_seen(1),
    )
    return seal(ATTESTATION_TYPE, document.canonical(), KEYS["clinic-1"])


def result() -> str:
    """The coordinator's attestation result. Policies change without the wire: the digest of one stands for any."""
    appraiser = Appraiser(AttestationPolicy.simulated_only(), PROFILE, NoEndorsements())
    report = appraiser.appraise(_simulated(site_binding(CHALLENGE)), site_binding(CHALLENGE), NOW - 14)
    fields = {**report.model_dump(mode="json"), "policy": sha256_hex(b"TEST POLICY")}
    return seal_result(AttestationReport.model_validate(fields), COORDINATOR)


def _shown_log(older: int = 1) -> dict[str, Any]:
    """What an order shows of the log: its first two lines, to a site that saw the first ``older``."""
    lines, checkpoint = log()
    path = tree_of(lines).consistency(older, 2)
    return {"log": checkpoint.decode(), "log_proof": LogProof(since=older, hashes=tuple(x.hex() for x in path))}


def _seen(size: int) -> LogSeen:
    return LogSeen(size=size, root=tree_of(log()[0]).root(size).hex())


def announcement() -> bytes:
    """After the last round: all three lines, to a site that saw two."""
    lines, whole = log()[0], log(3)[1]
    path = tree_of(lines).consistency(2, 3)
    document = LogAnnouncement(
        profile=PROFILE,
        site_id="clinic-1",
        job_id=JOB.job_id,
        job_digest=JOB.digest(),
        log=whole.decode(),
        log_proof=LogProof(since=2, hashes=tuple(each.hex() for each in path)),
        issued_at=NOW + 700,
        expires_at=NOW + 1300,
    )
    return seal(ANNOUNCEMENT_TYPE, document.canonical(), COORDINATOR)


def witness_statement() -> bytes:
    """A site that accepted one branch of three, refused a branch before, and gave up another one."""
    last, middle = log(3)[1].decode(), log()[1].decode()
    other = _forked_checkpoint().decode()
    kept = WitnessedLog(
        job_id=JOB.job_id,
        coordinator_key=COORDINATOR.public_hex,
        origin=origin_of_run(JOB.digest()),
        last=last,
        refused=(RefusedLog(held=middle, shown=other, at=NOW + 300),),
        abandoned=(AbandonedLog(held=other, taken=middle, by="A. Person", why="the disk was restored", at=NOW + 9),),
    )
    key = KEYS["clinic-1"]
    document = WitnessStatement(site_id="clinic-1", public_key=key.public_hex, made_at=NOW + 800, logs=(kept,))
    return seal_witness(document, key)


def _forked_checkpoint() -> bytes:
    head, root = sha256_hex(b"TEST LINE"), leaf_hash(b"TEST LINE").hex()
    document = LogCheckpoint(origin=origin_of_run(JOB.digest()), size=1, head=head, root=root)
    return seal(CHECKPOINT_TYPE, document.canonical(), COORDINATOR)


def proofs() -> dict[str, Any]:
    """Consistency proofs over a log of seven lines: between any two sizes."""
    tree = MerkleTree()
    lines = [f"line {number}" for number in range(7)]
    for line in lines:
        tree.append(leaf_hash(line.encode()))
    cases = [
        {
            "older": older,
            "older_root": tree.root(older).hex(),
            "size": size,
            "root": tree.root(size).hex(),
            "hashes": [each.hex() for each in tree.consistency(older, size)],
        }
        for size in range(8)
        for older in range(size + 1)
    ]
    return {"lines": lines, "cases": cases}


def order() -> bytes:
    document = RoundOrder(
        profile=PROFILE,
        job=JOB,
        round_number=1,
        site_id="clinic-1",
        nonce=NONCE,
        base_model_digest=sha256_hex(encode_arrays(BASE)),
        roll_call_digest=sha256_hex(encode_roll_call(enrolments())),
        last_head=seal_head(ledger_links()[2].head, "clinic-1", KEYS["clinic-1"]),
        coordinator=CoordinatorIdentity(
            kem_key=KEM_KEYS["coordinator"].public_hex,
            challenge=SITES_CHALLENGE,
            evidence=_simulated(coordinator_binding()).model_dump(mode="json"),
        ),
        attestation=result(),
        **_shown_log(),
        issued_at=NOW,
        expires_at=NOW + 660,
    )
    return seal(ORDER_TYPE, document.canonical(), COORDINATOR)


def update() -> bytes:
    key, head = KEYS["clinic-1"], ledger_links()[-1].head
    document = UpdateStatement(
        site_id="clinic-1",
        job_id=JOB.job_id,
        job_digest=JOB.digest(),
        round_number=1,
        nonce=NONCE,
        base_model_digest=sha256_hex(encode_arrays(BASE)),
        update_digest=sha256_hex(encode_arrays(UPDATE)),
        event=event_to_dict(EVENT),
        noise_source="site_keystream",
        unit="person",
        delta=1e-5,
        epsilon=0.125,
        nominal_units=2000,
        content_changed=False,
        metrics={},
        kem_key=KEM_KEYS["clinic-1"].public_hex,
        evidence=_simulated(site_binding(NONCE)).model_dump(mode="json"),
        ledger_head=LedgerHeadStatement(seq=head.seq, hash=head.hash),
        signed_head=seal_head(head, "clinic-1", key),
        log_seen=_seen(2),
    )
    return seal(UPDATE_TYPE, document.canonical(), key)


TRAVELS = {"model": ("clinic-1", order, BASE), "update": ("coordinator", update, UPDATE)}
"""What is encrypted, by its purpose: to whose key, beside which envelope, and the arrays."""


def encrypted(purpose: str) -> dict[str, Any]:
    """What travels encrypted, and the private key that decrypts it."""
    receiver, beside, arrays = TRAVELS[purpose]
    return {
        "kind": "encrypted",
        "purpose": purpose,
        "envelope": beside().decode(),
        "public_key": KEM_KEYS[receiver].public_hex,
        "TEST_KEY": _seed(f"{receiver} to be encrypted to").hex(),
        "ciphertext": ciphertext(ENCRYPTED / f"{purpose}.hex").hex(),
        "plaintext": encode_arrays(arrays).hex(),
    }


def health() -> bytes:
    document = HealthStatement(
        site_id="clinic-1",
        agent_version="0.1.0",
        sent_at=NOW,
        round_trip_s=0.0125,
        busy=True,
        budgets=(FreeBudget(dataset_id="clinic/visits", epsilon_cap=5.0, epsilon_spent=0.125, delta=1e-5),),
    )
    return seal(HEALTH_TYPE, document.canonical(), KEYS["clinic-1"])


def request() -> bytes:
    node = ec.derive_private_key(int.from_bytes(_seed("clinic-1's node"), "big"), ec.SECP384R1()).public_key()
    pem = node.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    document = RegistrationRequest(
        site_id="clinic-1",
        public_key=KEYS["clinic-1"].public_hex,
        node_key=base64.b64encode(pem).decode(),
        tls_request=(CERTIFICATES / "client.csr").read_text(),
    )
    return seal_request(document, KEYS["clinic-1"])


def grant() -> bytes:
    document = RegistrationGrant(
        site_id="clinic-1",
        public_key=KEYS["clinic-1"].public_hex,
        coordinator_key=COORDINATOR.public_hex,
        gateway="gateway.example:9443",
        server_name="gateway.example",
        ca_certificate=(CERTIFICATES / "ca.crt").read_text(),
        client_certificate=(CERTIFICATES / "client.crt").read_text(),
        participants={site: key.public_hex for site, key in KEYS.items()},
        issued_at=NOW - 3600,
    )
    return seal_grant(document, COORDINATOR)


def log(signed: int = 2) -> tuple[bytes, bytes]:
    """A log of three lines, and the checkpoint that signs the first two, or all of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        written = HashLog(path, clock=lambda: NOW + 0.25)
        written.append(actor="coordinator", action="run", outcome="started", details={"job": JOB.job_id})
        written.append(
            actor="coordinator", action="admit", outcome="refused", reason="late", details={"site": "zürich"}
        )
        checkpoint = sign_log(written, COORDINATOR, origin_of_run(JOB.digest()))
        written.append(actor="coordinator", action="round", outcome="completed")
        if signed == 3:
            checkpoint = sign_log(written, COORDINATOR, origin_of_run(JOB.digest()))
        written.close()
        return path.read_bytes(), checkpoint


def vectors() -> dict[str, dict[str, Any]]:
    """All vectors, by the name of their file."""
    links, called, (lines, checkpoint) = ledger_links(), encode_roll_call(enrolments()), log()
    head = links[-1].head
    return {
        "keys": _keys(),
        "canonical-json": _canonical_json(),
        "digests": _digests(),
        "job": {"kind": "job", "job": json.loads(JOB.canonical()), "sha256": JOB.digest()},
        "base-model": _arrays(BASE),
        "update-arrays": _arrays(UPDATE),
        "job-invitation": _envelope("job-invitation", invitation(), COORDINATOR),
        "enrolment": _envelope("enrolment", enrolments()["clinic-1"], KEYS["clinic-1"]),
        "roll-call": {
            "kind": "roll-call",
            "roll_call": called.decode(),
            "job_digest": JOB.digest(),
            "public_keys": {site: key.public_hex for site, key in KEYS.items()},
        },
        "attestation-request": _envelope("attestation-request", attestation_request(), COORDINATOR),
        "attestation": _envelope("attestation", attestation(), KEYS["clinic-1"]),
        **{
            f"attestation-{kind}": _envelope(
                "attestation", attestation(attested(EVIDENCE / f"{kind}.json")), KEYS["clinic-1"]
            )
            for kind in HARDWARE
        },
        "attestation-result": _envelope("attestation-result", result().encode(), COORDINATOR),
        "round-order": _envelope("round-order", order(), COORDINATOR),
        "update": _envelope("update", update(), KEYS["clinic-1"]),
        "log-checkpoint": _envelope("log-checkpoint", checkpoint, COORDINATOR),
        "log-announcement": _envelope("log-announcement", announcement(), COORDINATOR),
        "witness-statement": _envelope("witness-statement", witness_statement(), KEYS["clinic-1"]),
        "ledger-head": _envelope(
            "ledger-head", seal_head(head, "clinic-1", KEYS["clinic-1"]).encode(), KEYS["clinic-1"]
        ),
        "ledger-export": _envelope(
            "ledger-export", seal_export(write_export(links), "clinic-1", KEYS["clinic-1"], now=NOW), KEYS["clinic-1"]
        ),
        "run-manifest": _envelope(
            "run-manifest",
            seal(
                MANIFEST_TYPE,
                ManifestStatement(
                    job_digest=JOB.digest(), manifest=FileList(files={MODEL: sha256_hex(b"")}).digest()
                ).canonical(),
                COORDINATOR,
            ),
            COORDINATOR,
        ),
        "health": _envelope("health", health(), KEYS["clinic-1"]),
        "participation-request": _envelope("participation-request", request(), KEYS["clinic-1"]),
        "participation-welcome": _envelope("participation-welcome", grant(), COORDINATOR),
        "exchange": {
            "kind": "exchange",
            "coordinator_key": COORDINATOR.public_hex,
            "site_key": KEYS["clinic-1"].public_hex,
            "attestation-request": attestation_request().decode(),
            "attestation": attestation().decode(),
            "round-order": order().decode(),
            "model": {name: encrypted("model")[name] for name in ("ciphertext", "TEST_KEY")},
            "roll_call": called.decode(),
            "update": update().decode(),
            "arrays": {name: encrypted("update")[name] for name in ("ciphertext", "TEST_KEY")},
        },
        "encrypted-model": encrypted("model"),
        "encrypted-update": encrypted("update"),
        "ledger": {
            "kind": "ledger",
            "export": write_export(links).decode(),
            "head": {"seq": links[2].seq, "hash": links[2].hash},
        },
        "log": {
            "kind": "log",
            "lines": lines.decode(),
            "checkpoint": checkpoint.decode(),
            "proofs": proofs(),
            "public_key": COORDINATOR.public_hex,
        },
    }


def _keys() -> dict[str, Any]:
    keys = {"coordinator": COORDINATOR, **KEYS}
    return {
        "kind": "keys",
        "keys": {
            name: {"TEST_KEY_seed": _seed(name).hex(), "public_key": key.public_hex, "key_id": key.key_id}
            for name, key in keys.items()
        },
    }


def _canonical_json() -> dict[str, Any]:
    values: list[Any] = [
        {"b": 1, "a": [True, None, False], "B": {}},
        {"numbers": [0, -1, 2**53, 0.1, 3.0, 1e-05, 1e16, 1e22, 5e-324, 1.7976931348623157e308, -0.0]},
        {"text": 'quote " backslash \\ slash / tab \t line \n control \x01 delete \x7f'},
        {"beyond ASCII": "ü € 𝄞"},
    ]
    return {
        "kind": "canonical-json",
        "cases": [{"value": value, "bytes": canonical_json(value).decode()} for value in values],
    }


def _digests() -> dict[str, Any]:
    base = sha256_hex(encode_arrays(BASE))
    reservation = [bytes.fromhex(JOB.digest()), (1).to_bytes(8, "big"), bytes.fromhex(base)]
    keys = (KEYS["clinic-1"].public_hex, KEM_KEYS["clinic-1"].public_hex)
    bound = [b"1", bytes.fromhex(CHALLENGE), *(hashlib.sha256(bytes.fromhex(key)).digest() for key in keys)]
    cases: list[list[bytes]] = [
        [b"example"],
        [b"example", b""],
        [b"example", b"ab", b"c"],
        [b"example", b"a", b"bc"],
        [b"aegis/reservation/v1", *reservation],
        [b"aegis/attestation/site", *bound, b"clinic-1", bytes.fromhex(JOB.digest())],
        [b"aegis/hpke/v1", b"model", b"an envelope"],
    ]
    return {
        "kind": "digests",
        "cases": [
            {"parts": [part.hex() for part in parts], "sha256": digest(parts[0].decode(), *parts[1:]).hex()}
            for parts in cases
        ],
    }


def _arrays(arrays: dict[str, Any]) -> dict[str, Any]:
    data = encode_arrays(arrays)
    shapes = {name: list(shape) for name, shape in layout_of(arrays).items()}
    return {"kind": "arrays", "bytes": data.hex(), "sha256": sha256_hex(data), "shapes": shapes}


def _envelope(document: str, envelope: bytes, signer: Signer) -> dict[str, Any]:
    payload_type = f"application/vnd.aegis.{document}.v1+json"
    payload = open_envelope(envelope, payload_type, KeyRing({"signer": signer.public_hex})).payload
    return {
        "kind": "envelope",
        "document": document,
        "public_key": signer.public_hex,
        "envelope": envelope.decode(),
        "payload": json.loads(payload),
    }


def rendered(vector: dict[str, Any]) -> str:
    """A vector as its file has it."""
    return json.dumps(vector, indent=1, sort_keys=True) + "\n"


def main() -> None:
    for purpose, (receiver, beside, arrays) in TRAVELS.items():
        info = info_for(purpose, beside())
        encrypt_once(ENCRYPTED / f"{purpose}.hex", KEM_KEYS[receiver], encode_arrays(arrays), info)
    for kind, gpus in HARDWARE.items():
        attest_once(EVIDENCE / f"{kind}.json", kind, gpus, site_binding(CHALLENGE).context())
    for name, vector in vectors().items():
        (VECTORS / f"{name}.json").write_text(rendered(vector))


if __name__ == "__main__":
    main()
