"""Whatever ``aegis evidence`` is given: one line and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.aegis.commands.conftest import invoke
from tests.aegis.commands.evidence_files import NONCE, Files, bare, endorsing

Aegis = Callable[..., Result]
KINDS = ("sgx", "tdx", "snp", "nvidia")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def unusable(result: Result, said: str) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def refused(result: Result) -> str:
    assert result.exit_code == 3, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return str(json.loads(result.stdout)["reason"])


@pytest.mark.parametrize("option", ["--evidence", "--endorsements", "--platform-policy"])
def test_a_file_that_is_not_there_or_is_a_folder_is_unusable(aegis: Aegis, files: Files, option: str) -> None:
    question = files.question("snp")

    for path, said in ((files.folder / "missing", "does not exist"), (files.folder, "is a directory")):
        options = [*question[:2], *question[4:]] if option == "--evidence" else question
        unusable(aegis("evidence", "verify", *options, option, path), said)


@pytest.mark.parametrize("option", ["--evidence", "--endorsements", "--platform-policy"])
def test_a_file_that_fails_while_it_is_read_is_unusable(aegis: Aegis, files: Files, option: str) -> None:
    """Reading a process's memory from its first page is an error of the operating system."""
    question = files.question("snp")
    options = [*question[:2], *question[4:]] if option == "--evidence" else question

    unusable(aegis("evidence", "verify", *options, option, "/proc/self/mem"), "/proc/self/mem: ")


@pytest.mark.parametrize("command", ["verify", "appraise"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nonce", "zz" * 32], "hex digits"),
        (["--nonce", "ab" * 31], "32 bytes, got 31"),
        (["--nonce", "ab" * 33], "32 bytes, got 33"),
        (["--nonce", "a" * 63], "hex digits"),
        (["--nonce", f" {'ab' * 31} ab"], "hex digits"),
        (["--nonce", "é" * 64], "hex digits"),
        (["--nonce", ""], "got 0"),
        (["--nonce", "ab" * 32, "--nonce", "ab" * 32], "more than once"),
        (["--report-data", "ab" * 32], "must be 64 bytes"),
        (["--report-data", "ab" * 65], "got 65"),
        (["--now", "-1"], "--now"),
        (["--now", "tomorrow"], "--now"),
        (["--now", "1e9"], "--now"),
        (["--now", str(1 << 60)], "--now"),
        (["--now", "1", "--now", "2"], "more than once"),
        (["--kind", "sgx"], "more than once"),
        (["--evidence", "/dev/null"], "more than once"),
        (["--trust-me"], "No such option"),
        (["anything"], "unexpected extra argument"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(
    aegis: Aegis, files: Files, command: str, options: list[str], said: str
) -> None:
    policy = ["--policy", str(files.toml("policy.toml", {"kinds": ["snp"]}))] if command == "appraise" else []
    question = files.question("snp")[:-2] if "--now" in options else files.question("snp")

    unusable(aegis("evidence", command, *question, *policy, *options), said)


def test_a_gpus_report_data_have_32_bytes(aegis: Aegis, files: Files) -> None:
    unusable(aegis("evidence", "verify", *files.question("nvidia"), "--report-data", "ab" * 64), "must be 32 bytes")


@pytest.mark.parametrize("kind", ["simulated", "SGX", "", "sev"])
def test_an_unknown_kind_is_unusable(aegis: Aegis, files: Files, kind: str) -> None:
    path = files.write("evidence", bare("snp"))

    unusable(aegis("evidence", "verify", "--kind", kind, "--evidence", path), "--kind")
    unusable(aegis("evidence", "verify", "--evidence", path), "--kind")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"vmpls = [", "not TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"#" * 300_000, "larger than"),
        (b"allow_debug = true", "allow_debug is not a known field"),
        (b"vmpls = 'all'", "vmpls"),
        (b"[tcb_floor.Rome]", "tcb_floor"),
    ],
)
def test_a_policy_that_is_none_is_unusable(aegis: Aegis, files: Files, content: bytes, said: str) -> None:
    policy = files.write("policy.toml", content)

    unusable(aegis("evidence", "verify", *files.question("snp"), "--platform-policy", policy), said)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"\0", b"\xff" * 2000, b"{}", b"[]", b"[1]", b"[[[[", b"{" * 9000, b"hello"])
def test_evidence_that_is_junk_is_refused(aegis: Aegis, files: Files, kind: str, content: bytes) -> None:
    result = aegis("evidence", "verify", *files.question(kind, content), "--json")

    assert refused(result) in ("malformed", "oversized")


@pytest.mark.parametrize("option", ["--evidence", "--endorsements"])
def test_a_hundred_megabytes_are_refused_without_being_read(aegis: Aegis, files: Files, option: str) -> None:
    large = files.folder / "large"
    with large.open("wb") as file:
        file.truncate(100 << 20)
    question = files.question("snp")
    options = [*question[:2], *question[4:]] if option == "--evidence" else question

    result = aegis("evidence", "verify", *options, option, large, "--json")
    assert refused(result) == "oversized"
    assert "larger than 4194304 bytes" in result.stderr
    assert refused(aegis("evidence", "verify", "--kind", "snp", "--evidence", "/dev/zero", "--json")) == "oversized"
    inspected = aegis("evidence", "inspect", large)
    assert (inspected.exit_code, inspected.stdout) == (3, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_unusable(aegis: Aegis, files: Files) -> None:
    path = files.write("secret", b"")
    path.chmod(0)

    unusable(aegis("evidence", "verify", "--kind", "snp", "--evidence", path), "secret")


def test_inspect_prints_a_reference_or_json(aegis: Aegis, files: Files) -> None:
    path = files.write("evidence", bare("snp"))

    unusable(aegis("evidence", "inspect", path, "--reference", "--json"), "--json")
    unusable(aegis("evidence", "inspect", files.folder), "is a directory")
    unusable(aegis("evidence", "inspect"), "FILE")


ANY = st.one_of(
    st.binary(max_size=3000),
    st.sampled_from([bare(kind) for kind in KINDS])
    .flatmap(lambda good: st.tuples(st.just(good), st.integers(0, len(good) - 1), st.binary(max_size=40)))
    .map(lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), evidence=ANY, endorsement=ANY)
def test_no_file_makes_it_fail_or_accept(tmp_path: Path, kind: str, evidence: bytes, endorsement: bytes) -> None:
    files = Files(tmp_path)
    path, beside = files.write("evidence", evidence), files.write("endorsement", endorsement)

    verified = invoke(
        "evidence", "verify", "--kind", kind, "--evidence", path, "--endorsements", beside, "--nonce", NONCE.hex()
    )
    inspected = invoke("evidence", "inspect", path)

    assert verified.exit_code == 3, verified.output
    assert inspected.exit_code in (0, 3), inspected.output


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_endorsement_twice_changes_nothing(aegis: Aegis, files: Files, kind: str) -> None:
    """Of certificates a copy counts once; two manifests or collaterals are too many, and still no fault."""
    question = files.question(kind)
    first = next(iter(endorsing("gpu" if kind == "nvidia" else kind)))

    result = aegis("evidence", "verify", *question, "--endorsements", files.folder / first, "--json")

    assert refused(result) in ("chain", "endorsements_mismatch")
