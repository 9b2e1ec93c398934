"""``aegis evidence appraise``: one report, and a whole host bound to its keys and its job."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from coreason_enclave.attestation.appraisal import Appraiser, Verifiers
from coreason_enclave.attestation.binding import Binding, Role, manual_context
from coreason_enclave.attestation.reference_values import IDENTIFYING
from coreason_enclave.hardware.simulated import SimulatedAttester
from tests.aegis.commands.evidence_files import INTEL, MOMENTS, NONCE, NOW, Files, bare, gpu_list, host
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

Aegis = Callable[..., Result]

SUBJECT = "hospital-a"
KEY, KEM, JOB = (bytes([number]).hex() * 32 for number in (1, 2, 3))
BINDING = Binding(Role.SITE, NONCE.hex(), KEY, KEM, SUBJECT, JOB)
BOUND = {"--nonce": NONCE.hex(), "--public-key": KEY, "--kem-key": KEM, "--subject": SUBJECT, "--job-digest": JOB}
REVOCATION = [f"nvidia.{what}revocation" for what in ("", "driver_manifest_", "vbios_manifest_")] + ["snp.revocation"]
FLOOR = {"Milan": {"boot_loader": 1, "tee": 1, "snp": 1, "microcode": 1}}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(autouse=True)
def our_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The roots are ours: otherwise nothing made here could ever be accepted."""
    room = "aegis.evidence"
    ours = Verifiers(snp=amd.verifier(), dcap=INTEL["tdx"].verifier, nvidia=nvidia.verifier())
    monkeypatch.setattr(f"{room}.verification.verify_tdx", partial(INTEL["tdx"].verifier.verify, "tdx"))
    monkeypatch.setattr(f"{room}.verification.verify_snp", amd.verifier().verify)
    monkeypatch.setattr(f"{room}.verification.verify_nvidia", nvidia.verifier().verify)
    monkeypatch.setattr(f"{room}.appraisal.Appraiser", partial(Appraiser, verifiers=ours))


def known(aegis: Aegis, files: Files, kind: str) -> dict[str, Any]:
    """What ``verify`` says of evidence, as whoever enrols a machine reads it off."""
    found: dict[str, Any] = json.loads(aegis("evidence", "verify", *files.question(kind), "--json").stdout)
    assert found["verdict"] == "authentic", found["message"]
    return found


def policy(aegis: Aegis, files: Files, kind: str = "snp", **changes: Any) -> Path:
    """One that accepts the code and the machines of these tests; ``changes`` to its fields."""
    found, gpu = known(aegis, files, kind), known(aegis, files, "nvidia")
    values = [
        {"name": "agent-1", "kind": kind, "measurements": {name: found["measurements"][name] for name in names}}
        for of, names in IDENTIFYING.items()
        if of == kind
    ]
    document = {
        "kinds": [kind] if values else ["snp"],
        "accept_unchecked": REVOCATION,
        "snp": {"tcb_floor": FLOOR},
        "reference_values": values,
        "platforms": {SUBJECT: [found["platform_id"], gpu["platform_id"]]},
    }
    return files.toml("policy.toml", {"attestation": {**document, **changes}})


def appraised(aegis: Aegis, *options: str | Path) -> dict[str, Any]:
    """The JSON answer, whose exit code has to say the same."""
    result = aegis("evidence", "appraise", *options, "--json")
    document: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == {"accepted": 0, "refused": 3}[document["verdict"]], result.output
    return document


def outcome(aegis: Aegis, *options: str | Path) -> str:
    found = appraised(aegis, *options)
    return str(found["reason"] or found["verdict"])


# --- one report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tdx", "snp", "nvidia"])
def test_a_report_is_accepted_with_its_code_its_machine_and_its_nonce(aegis: Aegis, files: Files, kind: str) -> None:
    accepting = policy(aegis, files, kind)
    question = files.question(kind, bare(kind, NONCE if kind == "nvidia" else NONCE + bytes(32)))
    asked = [*question, "--policy", accepting]

    found = appraised(aegis, *asked, "--nonce", NONCE.hex(), "--subject", SUBJECT)

    assert found["verdict"] == "accepted", found["message"]
    assert found["claims"].get("reference_value") == (None if kind == "nvidia" else "agent-1")
    assert set(found["not_checked"]) <= set(REVOCATION)
    assert outcome(aegis, *asked, "--nonce", NONCE[::-1].hex(), "--subject", SUBJECT) == "nonce"
    assert outcome(aegis, *asked, "--nonce", NONCE.hex(), "--subject", "hospital-b") == "platform_unknown"
    assert outcome(aegis, *asked, "--nonce", NONCE.hex()) == "platform_unknown"
    assert outcome(aegis, *asked, "--subject", SUBJECT) == "unchecked"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"reference_values": []}, "measurement"),
        (
            {"reference_values": [{"name": "b", "kind": "snp", "measurements": {"measurement": "0f" * 48}}]},
            "measurement",
        ),
        ({"kinds": ["tdx"]}, "kind_not_accepted"),
        ({"kinds": []}, "kind_not_accepted"),
        ({"platforms": {}}, "platform_unknown"),
        ({"accept_unchecked": []}, "unchecked"),
        ({"snp": {}}, "unchecked"),
        ({"snp": {"signing_keys": ["VLEK"], "tcb_floor": FLOOR}}, "platform"),
        ({"gpus": 1}, "gpus_missing"),
    ],
)
def test_a_report_that_a_policy_does_not_accept_is_refused(
    aegis: Aegis, files: Files, changes: dict[str, Any], code: str
) -> None:
    refusing = policy(aegis, files, **changes)
    question = files.question("snp", bare("snp", NONCE + bytes(32)))

    asked = [*question, "--policy", refusing, "--nonce", NONCE.hex(), "--subject", SUBJECT]
    assert outcome(aegis, *asked) == code


def test_fewer_gpus_than_the_policy_wants_are_refused(aegis: Aegis, files: Files) -> None:
    wanting = policy(aegis, files, gpus=2)
    path = files.write("gpus.json", gpu_list("", nonce=NONCE))

    options = ["--kind", "nvidia", "--evidence", path, *files.endorsements("nvidia"), "--now", str(NOW)]
    assert outcome(aegis, *options, "--policy", wanting, "--nonce", NONCE.hex(), "--subject", SUBJECT) == "gpus_missing"


# --- a whole host -----------------------------------------------------------------------------------------------------


def whole(files: Files, context: bytes, **changes: Any) -> list[str | Path]:
    """A host's evidence over ``context``, everything that endorses it, and when it is judged."""
    kind = changes.get("kind", "snp")
    path = files.write("host.json", host(context, **changes))
    endorsed = [*files.endorsements(kind), *files.endorsements("nvidia")]
    return ["--evidence", path, *endorsed, "--now", str(MOMENTS[kind])]


def bound(**changes: str) -> list[str]:
    return [word for option in ({**BOUND, **changes}).items() for word in option]


def test_a_host_is_accepted_as_it_is_bound_to_its_nonce_keys_name_and_job(aegis: Aegis, files: Files) -> None:
    accepting = policy(aegis, files, gpus=1)

    asked = [*whole(files, BINDING.context()), *bound(), "--policy", accepting]
    found, page = appraised(aegis, *asked), aegis("evidence", "appraise", *asked).stdout

    assert found["verdict"] == "accepted", found["message"]
    assert (found["claims"]["measurement"], found["claims"]["provenance"]) == ("agent-1", "attested")
    assert (found["claims"]["appraised_at"], found["claims"]["expires_at"]) == (NOW, NOW + 600)
    assert len(found["claims"]["platform_ids"]) == 2
    assert page.startswith("ACCEPTED\n")


def test_a_trust_domain_without_gpus_is_accepted_and_its_collateral_found_among_the_files(
    aegis: Aegis, files: Files
) -> None:
    accepting = policy(aegis, files, "tdx")
    crl = files.write("amd.crl", amd.Vendor().revocation_list())

    asked = [*whole(files, BINDING.context(), kind="tdx", gpus=()), *bound(), "--policy", accepting]
    assert outcome(aegis, *asked, "--endorsements", crl) == "accepted"


def test_certificates_that_a_host_hands_over_beside_its_report_endorse_it(aegis: Aegis, files: Files) -> None:
    accepting = policy(aegis, files)
    path = files.write("host.json", host(BINDING.context(), gpus=(), handed_over=True))
    without = files.write("without.json", host(BINDING.context(), gpus=()))

    asked = ["--policy", accepting, *bound(), "--now", str(NOW), "--evidence"]
    assert outcome(aegis, *asked, path) == "accepted"
    assert outcome(aegis, *asked, without) == "endorsements_missing"


def test_revocation_data_are_found_among_the_files_and_need_no_exception_then(aegis: Aegis, files: Files) -> None:
    strict = policy(aegis, files, accept_unchecked=[])
    asked = [*whole(files, BINDING.context()), *bound(), "--policy", strict]
    lists = [files.write("amd.crl", amd.Vendor().revocation_list())]
    answers = [answer.der() for answer in (*nvidia.device_answers(), *nvidia.manifest_answers())]
    lists += [files.write(f"ocsp-{number}.der", der) for number, der in enumerate(answers)]

    assert outcome(aegis, *asked) == "unchecked"
    checked = [word for path in lists for word in ("--endorsements", path)]
    assert outcome(aegis, *asked, *checked) == "accepted"


@pytest.mark.parametrize(
    "changes",
    [
        {"--nonce": "ff" * 32},
        {"--public-key": "ff" * 32},
        {"--kem-key": "ff" * 32},
        {"--job-digest": "ff" * 32},
        {"--subject": "hospital-b"},
        {"--role": "coordinator"},
        {"--public-key": KEM, "--kem-key": KEY},
    ],
    ids=str,
)
def test_a_host_that_is_bound_to_something_else_is_refused(aegis: Aegis, files: Files, changes: dict[str, str]) -> None:
    accepting = policy(aegis, files, platforms={})

    asked = [*whole(files, BINDING.context()), *bound(**changes), "--policy", accepting]
    assert outcome(aegis, *asked) == "report_data"
    assert outcome(aegis, *whole(files, BINDING.context()), *bound(), "--policy", accepting) == "platform_unknown"


def test_evidence_collected_by_hand_speaks_for_no_site(aegis: Aegis, files: Files) -> None:
    accepting = policy(aegis, files)

    asked = [*whole(files, manual_context(NONCE)), *bound(), "--policy", accepting]
    assert outcome(aegis, *asked) == "report_data"


@pytest.mark.parametrize("kinds", [["simulated"], ["simulated", "snp"], ["snp"]])
def test_simulated_evidence_is_never_accepted(aegis: Aegis, files: Files, kinds: list[str]) -> None:
    accepting = policy(aegis, files, kinds=kinds)
    path = files.write("host.json", SimulatedAttester().produce(BINDING.context()).model_dump_json())

    assert outcome(aegis, "--evidence", path, *bound(), "--policy", accepting) == "simulated"


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"\xff" * 100, bare("snp"), b"{" * 9000])
def test_what_is_no_hosts_evidence_is_refused(aegis: Aegis, files: Files, junk: bytes) -> None:
    accepting, path = policy(aegis, files), files.write("host.json", junk)

    assert outcome(aegis, "--evidence", path, *bound(), "--policy", accepting) in ("malformed", "wrong_kind")


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x30", b"{", b"\x30\x03\x0a\x01\x00"])
def test_junk_among_the_files_of_a_host_is_refused(aegis: Aegis, files: Files, junk: bytes) -> None:
    accepting, bad = policy(aegis, files), files.write("junk", junk)

    asked = [*whole(files, BINDING.context()), *bound(), "--policy", accepting, "--endorsements", bad]
    assert outcome(aegis, *asked) == "malformed"


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--nonce, --subject, --public-key, --kem-key, --job-digest"),
        ([*bound(), "--report-data", "00" * 64], "--report-data applies only to a single report"),
        ([*bound(), "--kind", "snp"], "leave out --public-key, or --kind"),
        (["--kind", "snp", "--role", "site"], "leave out --role, or --kind"),
        (bound(**{"--subject": "../../etc"}), "--subject"),
        (bound(**{"--subject": ""}), "--subject"),
        (bound(**{"--public-key": "00"}), "32 bytes"),
    ],
)
def test_a_binding_that_is_not_whole_is_unusable(aegis: Aegis, files: Files, options: list[str], said: str) -> None:
    path, accepting = files.write("host.json", host(BINDING.context())), files.toml("p.toml", {"kinds": ["snp"]})

    result = aegis("evidence", "appraise", "--evidence", path, "--policy", accepting, *options)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "kinds is required"),
        ({"kinds": ["sev"]}, "kinds"),
        ({"kinds": ["snp"], "allow_everything": True}, "allow_everything is not a known field"),
        ({"attestation": {"kinds": ["snp"]}, "snp": {}}, "remove or move snp, ignored beside the table [attestation]"),
        ({"kinds": ["snp"], "accept_unchecked": ["snp.measurements"]}, "accept_unchecked"),
        ({"kinds": ["snp"], "lifetime_s": 601}, "lifetime_s"),
        ({"kinds": ["snp"], "reference_values": [{"name": "a", "kind": "tdx", "measurements": {}}]}, "mr_td"),
    ],
)
def test_a_policy_that_is_none_is_unusable(aegis: Aegis, files: Files, document: dict[str, Any], said: str) -> None:
    path, bad = files.write("host.json", host(BINDING.context())), files.toml("policy.toml", document)

    result = aegis("evidence", "appraise", "--evidence", path, "--policy", bad, *bound())

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
