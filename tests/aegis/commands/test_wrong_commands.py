"""Wrong commands of both programs: each gets at most three lines in the reader's words, and exit code 2 or 3."""

# ruff: noqa: E501 - one line a case

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

from aegis import cli
from coreason_enclave import main as site

PROGRAMS: dict[str, click.Group] = {"aegis": cli.main, "coreason-enclave": site.main}
INSIDE = re.compile(
    r"Traceback|\[Errno|literal\[|constrained|pydantic|Input should be|type=|\w+Error\b|\bNone\b|PosixPath|internal:|"
    r"object at 0x|<class|validation error"
)
"""Words from inside the program, which tell its reader nothing."""

SITE = "study/sites/north/site.toml"
LEDGER = "study/sites/north/ledger.sqlite"
DATASET = "study/sites/north/data/study/rows/dataset.toml"
ROWS = "study/sites/north/data/study/rows/rows.csv"
HEX = "ab" * 32
JUNK = bytes(range(256)) * 4

Edit = tuple[str, str] | bytes | None
"""A text to replace and its replacement; a whole new content; or no file at all."""


class Wrong(NamedTuple):
    command: str
    edits: Mapping[str, Edit] = {}
    said: str = ""

    def __str__(self) -> str:
        return "; ".join([self.command, *self.edits])[:90]


def in_toml(path: str, old: str, new: str, command: str, said: str = "") -> Wrong:
    return Wrong(command, {path: (old, new)}, said)


PLAN, RUN, CHECK = (
    "aegis plan study",
    "aegis run study --runtime in-process",
    f"coreason-enclave dataset check study/rows --config {SITE}",
)
DOCTOR, SHOW = (
    f"coreason-enclave policy show --config {SITE}",
    f"coreason-enclave dataset show study/rows --config {SITE}",
)
EPSILON = "aegis privacy epsilon --delta 1e-5"

WRONG = [
    # Options: missing, of the wrong type, out of range.
    Wrong(f"{EPSILON} --noise-multiplier x --sample-rate 0.1 --steps 3", said="must be a number"),
    Wrong(f"{EPSILON} --noise-multiplier nan --sample-rate 0.1 --steps 3"),
    Wrong(f"{EPSILON} --noise-multiplier -1 --sample-rate 0.1 --steps 3", said="must be in (0, 1e+06], got -1"),
    Wrong(f"{EPSILON} --noise-multiplier 1 --sample-rate 2 --steps 3", said="must be in (0, 1], got 2"),
    Wrong(f"{EPSILON} --noise-multiplier 1 --sample-rate 0.1 --steps 0"),
    Wrong(f"{EPSILON} --noise-multiplier 1 --sample-rate 0.1 --steps 1e3"),
    Wrong(f"{EPSILON} --noise-multiplier 1"),
    Wrong(f"{EPSILON} --segment 1,2"),
    Wrong(f"{EPSILON} --segment a,b,c"),
    Wrong("aegis privacy epsilon --delta 2 --segment 1,0.1,3"),
    Wrong("aegis privacy calibrate --target-epsilon inf --sample-rate 0.1 --steps 3 --delta 1e-5"),
    Wrong("aegis privacy calibrate --target-epsilon 1 --sample-rate 0.1 --steps 3 --delta 1e-5 --units 3"),
    Wrong("aegis demo --sites 7"),
    Wrong("aegis demo --epsilon -1"),
    Wrong("aegis demo --epsilon nan"),
    Wrong("aegis demo --repeats x"),
    Wrong("aegis demo --runs file.txt"),
    Wrong("aegis explain nothing"),
    Wrong("aegis federation init fed --delta 3"),
    Wrong("aegis federation init fed --public-address nowhere"),
    Wrong("aegis federation init fed --public-address host:99999"),
    Wrong("aegis federation init file.txt --profile development"),
    Wrong("aegis federation init study --profile development"),
    Wrong("aegis --log-level loud plan study"),
    # Places where a file or folder of another kind, or none, stands.
    Wrong("aegis plan nothing"),
    Wrong("aegis plan folder"),
    Wrong("aegis plan file.txt --federation study"),
    Wrong("aegis plan junk.bin --federation study"),
    Wrong("aegis plan empty.txt --federation study"),
    Wrong("aegis plan file.txt"),
    Wrong("aegis plan study --federation study"),
    Wrong("aegis plan unreadable.txt --federation study"),
    Wrong("aegis run nothing"),
    Wrong("aegis run folder"),
    Wrong("aegis run file.txt"),
    Wrong("aegis run file.txt --federation study"),
    Wrong("aegis run junk.bin --federation study"),
    Wrong("aegis run study --runtime in-process --federation study"),
    Wrong("aegis run study --set rounds"),
    Wrong("aegis run study --set rounds=many --runtime in-process"),
    Wrong("aegis run study --set privcy.delta=1 --runtime in-process", said="did you mean 'privacy'"),
    Wrong("aegis run study --simulator --runtime in-process"),
    Wrong("aegis run export folder --out out.zip"),
    Wrong("aegis run export study --out out.zip"),
    Wrong("aegis run repair folder"),
    Wrong("aegis runs file.txt"),
    Wrong("aegis runs list nothing"),
    Wrong("aegis runs compare folder study"),
    Wrong("aegis runs compare folder"),
    Wrong("aegis verify folder"),
    Wrong("aegis verify study"),
    Wrong("aegis verify file.txt"),
    Wrong("aegis verify junk.bin"),
    Wrong("aegis verify empty.txt"),
    Wrong("aegis verify unreadable.txt"),
    Wrong("aegis verify folder --coordinator-key zz"),
    Wrong("aegis verify folder --participant-key north"),
    Wrong("aegis verify folder --checkpoint junk.bin"),
    Wrong("aegis verify folder --checkpoint empty.txt"),
    Wrong("aegis verify folder --witness list.json"),
    Wrong("aegis verify folder --witness unreadable.txt"),
    Wrong("aegis predict folder rows.csv"),
    Wrong("aegis predict nothing rows.csv"),
    Wrong("aegis evaluate study rows.csv"),
    Wrong("aegis evaluate folder junk.bin"),
    Wrong("aegis evaluate folder rows.csv --samples 0"),
    Wrong("aegis federation status folder"),
    Wrong("aegis federation status file.txt"),
    Wrong("aegis federation down folder", said="folder is not a federation folder"),
    Wrong("aegis federation serve folder"),
    Wrong("aegis federation up folder"),
    Wrong("aegis nvflare provision folder --server host --admin me@example.org --out kits"),
    Wrong("aegis nvflare provision study --server host --admin me@example.org --out kits --port 0"),
    Wrong("aegis init new --data nothing.csv --label sick --yes"),
    Wrong("aegis init new --data junk.bin --label sick --yes"),
    Wrong("aegis init new --data empty.txt --data south.csv --label sick --yes"),
    Wrong("aegis federation revoke study east"),
    Wrong("aegis federation pin study east --platform x"),
    Wrong("aegis federation pin folder north --platform x"),
    Wrong("aegis federation admit study junk.bin", said="junk.bin: not a valid JSON document: it is not text in UTF-8: `coreason-enclave request` makes the file"),
    Wrong("aegis federation admit study empty.txt", said="empty.txt: not a valid JSON document: it is empty"),
    Wrong("aegis federation admit study list.json"),
    Wrong("aegis federation admit folder file.txt"),
    Wrong("aegis federation admit study folder"),
    Wrong("aegis federation admit study unreadable.txt"),
    Wrong("aegis nvflare export-job file.txt --federation folder --out job"),
    Wrong("aegis nvflare export-job junk.bin --federation study --out job"),
    Wrong("aegis evidence inspect junk.bin"),
    Wrong("aegis evidence inspect empty.txt"),
    Wrong("aegis evidence inspect list.json"),
    Wrong("aegis evidence inspect broken.json"),
    Wrong("aegis evidence inspect unreadable.txt"),
    Wrong("aegis evidence verify --kind snp --evidence junk.bin"),
    Wrong("aegis evidence verify --kind tdx --evidence empty.txt --endorsements list.json"),
    Wrong("aegis evidence verify --kind snp --evidence junk.bin --platform-policy broken.toml"),
    Wrong("aegis evidence verify --kind snp --evidence junk.bin --platform-policy unknown.toml"),
    Wrong("aegis evidence verify --kind snp --evidence junk.bin --nonce abc"),
    Wrong("aegis evidence appraise --evidence junk.bin --policy junk.bin"),
    Wrong("aegis evidence appraise --evidence junk.bin --policy unknown.toml --kind snp"),
    # The files of a study.
    in_toml("study/study.toml", "rounds = 20", "rounds = 0", PLAN, "study/study.toml"),
    in_toml("study/study.toml", "rounds = 20", 'rounds = "many"', PLAN, "study/study.toml"),
    in_toml("study/study.toml", "rounds = 20", "round = 20", PLAN, "did you mean 'rounds'?"),
    in_toml("study/study.toml", "rounds = 20", "rounds = 1" + "0" * 30, PLAN),
    in_toml("study/study.toml", "learning_rate = 0.3", "learning_rate = nan", PLAN),
    in_toml("study/study.toml", "target_epsilon = 3.0", "target_epsilon = -3.0", PLAN),
    in_toml("study/study.toml", 'mechanism = "DP_SGD"', 'mechanism = "DP_SDG"', PLAN, "did you mean 'DP_SGD'?"),
    in_toml("study/study.toml", 'kind = "binary"', 'kind = "binry"', PLAN),
    in_toml("study/study.toml", 'model_arch = "Linear"', 'model_arch = "Liner"', PLAN, "did you mean 'Linear'?"),
    in_toml("study/study.toml", "[job]", "[job", PLAN),
    in_toml("study/study.toml", "version = 1", "version = 9", PLAN),
    in_toml("study/study.toml", "version = 1", "vresion = 1", PLAN),
    in_toml("study/study.toml", 'job_id = "study"', 'job_id = "../../x"', PLAN),
    Wrong(PLAN, {"study/study.toml": b""}),
    Wrong(PLAN, {"study/study.toml": JUNK}),
    Wrong(PLAN, {"study/study.toml": None}),
    Wrong(RUN, {"study/study.toml": b"[[[["}),
    in_toml("study/dictionary.toml", "classes = 2", "clases = 2", RUN, "did you mean 'classes'?"),
    in_toml("study/dictionary.toml", "classes = 2", "classes = -2", RUN, "study/dictionary.toml"),
    Wrong(RUN, {"study/dictionary.toml": JUNK}),
    Wrong(RUN, {"study/federation.toml": JUNK}),
    Wrong(RUN, {"study/federation.toml": b""}),
    in_toml("study/federation.toml", "delta = ", "dleta = ", RUN),
    Wrong(RUN, {"study/coordinator/signing.key": b"short"}),
    # The files of a site.
    Wrong("coreason-enclave explain nothing"),
    Wrong("coreason-enclave dataset list --config folder"),
    in_toml(SITE, "version = 1", "version = 2", f"coreason-enclave dataset list --config {SITE}", SITE),
    Wrong("coreason-enclave found --config folder"),
    Wrong("coreason-enclave doctor --config folder"),
    Wrong("coreason-enclave doctor --config nothing"),
    Wrong("coreason-enclave init --config file.txt"),
    Wrong("coreason-enclave status --config study/sites/north"),
    Wrong("coreason-enclave request study/sites/north --out folder"),
    Wrong("coreason-enclave request study/sites/north --out nothing/request.json"),
    Wrong(f"coreason-enclave join study/sites/north junk.bin --coordinator-key {HEX}"),
    Wrong(f"coreason-enclave join study/sites/north empty.txt --coordinator-key {HEX}"),
    Wrong(f"coreason-enclave join study/sites/north list.json --coordinator-key {HEX}", said="list.json: expected a JSON object: `aegis federation admit` makes the file"),
    Wrong("coreason-enclave join study/sites/north list.json --coordinator-key zz"),
    Wrong("coreason-enclave agent --config folder"),
    Wrong("coreason-enclave agent --config study/sites/north --unsafe-seed x"),
    Wrong("coreason-enclave attest --nonce 5a"),
    Wrong(f"coreason-enclave attest --nonce {HEX} --attester simulatd"),
    Wrong(f"coreason-enclave attest --nonce {HEX} --out file.txt"),
    Wrong("coreason-enclave ledger show junk.bin"),
    Wrong("coreason-enclave ledger show empty.txt", said="`coreason-enclave ledger export` makes the file"),
    Wrong("coreason-enclave ledger show list.json"),
    Wrong("coreason-enclave ledger show broken.json", said="line 1, column 15"),
    Wrong("coreason-enclave ledger show unreadable.txt"),
    Wrong("coreason-enclave ledger show damaged.sqlite"),
    Wrong("coreason-enclave ledger verify damaged.sqlite"),
    Wrong(f"coreason-enclave ledger verify {LEDGER} --expect 3"),
    Wrong(f"coreason-enclave ledger verify {LEDGER} --expect 99:{HEX}"),
    Wrong(f"coreason-enclave ledger backup {LEDGER} --out file.txt"),
    Wrong(f"coreason-enclave ledger backup {LEDGER} --out nothing/copy.sqlite"),
    Wrong("coreason-enclave ledger backup list.json --out copy.sqlite"),
    Wrong(f"coreason-enclave ledger export {LEDGER} --out nothing/out.json", said="nothing/out.json: No such"),
    Wrong(f"coreason-enclave ledger acknowledge {LEDGER} --head 1:x --by A --why B"),
    Wrong("coreason-enclave ledger acknowledge damaged.sqlite --head 1:" + HEX + " --by A --why B"),
    Wrong("coreason-enclave export-ledger study/sites/north --out file.txt"),
    Wrong("coreason-enclave export-ledger study/sites/north --out out", {LEDGER: None}),
    Wrong("coreason-enclave export-ledger study/sites/north --out out", {"study/sites/north/keys/signing.key": b"x"}, "must hold 32 bytes, but has 1"),
    Wrong("coreason-enclave export-ledger study/sites/north --out out", {"study/sites/north/keys/signing.key": None}),
    Wrong("coreason-enclave checkpoints show folder"),
    Wrong(f"coreason-enclave checkpoints acknowledge study/sites/north --job {HEX} --checkpoint 3 --by A --why B"),
    Wrong(f"coreason-enclave checkpoints acknowledge study/sites/north --job {HEX} --checkpoint 3:{HEX} --by A --why B"),
    Wrong("coreason-enclave checkpoints export study/sites/north --out nothing/x.json"),
    Wrong(f"coreason-enclave policy raise-cap east/rows --epsilon 3 --reason x --config {SITE}"),
    Wrong(f"coreason-enclave policy raise-cap study/rows --epsilon nan --reason x --config {SITE}"),
    Wrong(f"coreason-enclave policy raise-cap study/rows --epsilon 1e-9 --reason x --config {SITE}"),
    Wrong(f"coreason-enclave policy add-participant east --key zz --reason x --config {SITE}"),
    Wrong(f"coreason-enclave policy add-participant ../east --key {HEX} --reason x --config {SITE}"),
    Wrong(f"coreason-enclave policy allow-model Liner --reason x --config {SITE}"),
    in_toml(SITE, "min_clients = 2", "min_client = 2", DOCTOR, "did you mean 'min_clients'?"),
    in_toml(SITE, "min_clients = 2", "min_clients = -2", DOCTOR, SITE),
    in_toml(SITE, "min_clients = 2", 'min_clients = "two"', DOCTOR, SITE),
    in_toml(SITE, 'profile = "development"', 'profile = "developement"', DOCTOR),
    in_toml(SITE, 'data_root = "data"', 'data_root = "../../../../etc"', DOCTOR),
    in_toml(SITE, 'attester = "simulated"', "attester = 3", DOCTOR),
    Wrong(DOCTOR, {SITE: b""}),
    Wrong(DOCTOR, {SITE: JUNK}),
    Wrong(DOCTOR, {SITE: b"[policy"}),
    in_toml(SITE, "min_clients = 2", "min_client = 2", f"coreason-enclave init --config {SITE}"),
    in_toml(DATASET, 'file = "rows.csv"', 'fiel = "rows.csv"', CHECK, "did you mean 'file'?"),
    in_toml(DATASET, 'format = "csv"', 'format = "xls"', CHECK),
    in_toml(DATASET, 'file = "rows.csv"', 'file = "../rows.csv"', CHECK),
    in_toml(DATASET, 'file = "rows.csv"', 'file = "nothing.csv"', CHECK),
    in_toml(DATASET, 'column = "sick"', 'column = "sik"', CHECK),
    Wrong(CHECK, {DATASET: b""}),
    Wrong(CHECK, {DATASET: JUNK}),
    Wrong(CHECK, {ROWS: b""}),
    Wrong(CHECK, {ROWS: JUNK}),
    Wrong(CHECK, {ROWS: None}),
    Wrong(f"{CHECK} --dictionary junk.bin"),
    Wrong(f"{CHECK} --dictionary unknown.toml"),
    Wrong(f"{CHECK} --dictionary nothing"),
    Wrong(SHOW.replace("study/rows", "east/rows")),
    Wrong(SHOW, {DATASET: JUNK}),
    Wrong(f"coreason-enclave dataset init junk.bin --dataset-id a/b --label y --config {SITE}"),
    Wrong(f"coreason-enclave dataset init empty.txt --dataset-id a/b --label y --config {SITE}"),
    Wrong(f"coreason-enclave dataset init rows.csv --dataset-id ../b --label sick --config {SITE}"),
    Wrong(f"coreason-enclave dataset init rows.csv --dataset-id a/b --label nothing --config {SITE}"),
    Wrong(f"coreason-enclave dataset register a/b --nominal-units 9 --epsilon 1 --delta 1e-5 --job-epsilon 1 --job-delta 1e-5 --config {SITE}"),
]  # fmt: skip


def rows(site: str) -> str:
    lines = [f"{site}-{number},{20 + number},{number % 5}.5,{number % 2}" for number in range(20)]
    return "\n".join(["patient,age,dose,sick", *lines]) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two sites, and files that are of no use to any command."""
    place = tmp_path_factory.mktemp("wrong")
    (place / "folder").mkdir()
    contents: dict[str, str | bytes] = {
        "rows.csv": rows("north"),
        "south.csv": rows("south"),
        "file.txt": "Once upon a time.\n",
        "empty.txt": "",
        "junk.bin": JUNK,
        "list.json": "[1, 2]",
        "broken.json": '{"version": 1,',
        "broken.toml": "version = = 1",
        "unknown.toml": "nothing_of_the_kind = 1",
        "damaged.sqlite": b"SQLite format 3\x00" + JUNK,
        "unreadable.txt": "x",
    }
    for name, content in contents.items():
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (place / "unreadable.txt").chmod(0)
    (place / "rows.csv").rename(place / "north.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        command = "init study --data north.csv --data south.csv --label sick --person patient --yes"
        made = CliRunner().invoke(cli.main, command.split())
        assert made.exit_code == 0, made.output
    (place / "rows.csv").write_text(rows("north"))
    return place


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("PWD", str(place))
    return place


@pytest.fixture
def edited(here: Path, wrong: Wrong) -> Iterator[Path]:
    """The folder with the files changed as the case says; as before afterwards."""
    before = {name: ((here / name).read_bytes(), (here / name).stat().st_mode) for name in wrong.edits}
    for name, edit in wrong.edits.items():
        if edit is None:
            (here / name).unlink()
        elif isinstance(edit, bytes):
            (here / name).write_bytes(edit)
        else:
            text = (here / name).read_text()
            assert edit[0] in text, f"{name} holds no {edit[0]!r}"
            (here / name).write_text(text.replace(edit[0], edit[1], 1))
    yield here
    for name, (content, mode) in before.items():
        (here / name).write_bytes(content)
        (here / name).chmod(mode)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_command_is_answered_in_the_reader_s_words(wrong: Wrong, edited: Path) -> None:
    if "unreadable" in wrong.command and os.access("unreadable.txt", os.R_OK):
        pytest.skip("this user may read every file")
    program, *arguments = wrong.command.split()

    result = CliRunner().invoke(PROGRAMS[program], arguments, prog_name=program)

    said = result.output
    assert result.exit_code in {2, 3}, (said, result.exception)
    assert 1 <= len(said.strip().splitlines()) <= 3, said
    assert not INSIDE.findall(said), said
    assert f"{edited}/" not in said
    assert wrong.said in said


def test_the_table_covers_every_command() -> None:
    def leaves(command: click.Command, path: str) -> set[str]:
        if not isinstance(command, click.Group):
            return {path}
        context = click.Context(command)
        return {
            leaf
            for name in command.list_commands(context)
            if (found := command.get_command(context, name)) is not None
            for leaf in leaves(found, f"{path} {name}")
        }

    commands = {leaf for program, root in PROGRAMS.items() for leaf in leaves(root, program)}
    missed = {leaf for leaf in commands if not any(f"{wrong.command} ".startswith(f"{leaf} ") for wrong in WRONG)}
    assert missed == set()
