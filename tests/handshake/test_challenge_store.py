"""Challenges: set to one, answered once, in time; whatever is restarted, raced or set back meanwhile."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coreason_enclave.attestation.challenges import CHALLENGE_S, FileChallenges
from coreason_enclave.errors import AttestationError, ConfigurationError, Reason
from tests.handshake.parties import NOW


@pytest.fixture
def challenges(tmp_path: Path) -> FileChallenges:
    return FileChallenges(tmp_path / "challenges")


def assert_refused(challenges: FileChallenges, nonce: str, subject: str = "a", now: float = NOW) -> None:
    with pytest.raises(AttestationError) as refused:
        challenges.redeem(nonce, subject, now)
    assert refused.value.reason is Reason.ATTESTATION_REQUIRED


def files(challenges: FileChallenges) -> list[Path]:
    return list(challenges._folder.iterdir())


def test_a_challenge_is_32_fresh_bytes_and_counts_once(challenges: FileChallenges) -> None:
    nonces = [challenges.issue("a", NOW) for _ in range(50)]
    assert len(set(nonces)) == 50
    assert {len(bytes.fromhex(nonce)) for nonce in nonces} == {32}
    challenges.redeem(nonces[0], "a", NOW)
    assert_refused(challenges, nonces[0])
    challenges.redeem(nonces[1], "a", NOW)


def test_a_challenge_is_open_for_its_time_and_no_second_longer(challenges: FileChallenges) -> None:
    at_the_end, too_late = challenges.issue("a", NOW), challenges.issue("a", NOW)
    challenges.redeem(at_the_end, "a", NOW + CHALLENGE_S)
    assert_refused(challenges, too_late, now=NOW + CHALLENGE_S + 1)
    assert_refused(challenges, too_late)  # and it is used up by that


def test_a_challenge_to_one_is_none_to_another_and_stays_open(challenges: FileChallenges) -> None:
    nonce = challenges.issue("a", NOW)
    assert_refused(challenges, nonce, "b")
    assert_refused(challenges, nonce, "a\x00")
    assert_refused(challenges, nonce, "")
    challenges.redeem(nonce, "a", NOW)


def test_what_was_never_set_is_no_challenge_even_where_there_is_no_folder_yet(challenges: FileChallenges) -> None:
    assert_refused(challenges, "ab" * 32)
    challenges.issue("a", NOW)
    assert_refused(challenges, "ab" * 32)


def test_a_restart_neither_forgets_an_open_challenge_nor_opens_a_used_one(
    challenges: FileChallenges, tmp_path: Path
) -> None:
    used, still_open = challenges.issue("a", NOW), challenges.issue("a", NOW)
    challenges.redeem(used, "a", NOW)
    restarted = FileChallenges(tmp_path / "challenges")
    assert_refused(restarted, used)
    restarted.redeem(still_open, "a", NOW + 1)


def test_a_clock_that_is_set_back_by_more_than_a_step_opens_nothing(challenges: FileChallenges) -> None:
    stepped, set_back = challenges.issue("a", NOW), challenges.issue("a", NOW)
    challenges.redeem(stepped, "a", NOW - 60)
    assert_refused(challenges, set_back, now=NOW - 61)


def test_forgotten_challenges_do_not_pile_up(challenges: FileChallenges) -> None:
    for _ in range(5):
        challenges.issue("a", NOW)
    assert len(files(challenges)) == 5
    challenges.issue("a", NOW + 1000)
    assert len(files(challenges)) == 1


def test_nothing_in_the_folder_says_what_would_answer_a_challenge(challenges: FileChallenges) -> None:
    nonce = challenges.issue("clinic-1", NOW)
    (file,) = files(challenges)
    assert file.read_bytes() == b""
    assert nonce not in file.name
    assert "clinic" not in file.name
    assert file.stat().st_mode & 0o777 == 0o600
    assert challenges._folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_used_is_a_fault_of_this_host_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    challenges = FileChallenges(tmp_path / "a file")
    with pytest.raises(ConfigurationError, match=r"cannot be stored in .*a file"):
        challenges.issue("a", NOW)
    with pytest.raises(ConfigurationError, match=r"cannot be stored in .*a file"):
        challenges.redeem("ab" * 32, "a", NOW)


def wins(challenges: FileChallenges, nonce: str) -> bool:
    try:
        challenges.redeem(nonce, "a", NOW)
    except AttestationError:
        return False
    return True


def test_of_many_threads_at_once_exactly_one_uses_a_challenge(challenges: FileChallenges) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(25):
            nonce, together = challenges.issue("a", NOW), Barrier(8)

            def race(_: int, nonce: str = nonce, together: Barrier = together) -> bool:
                together.wait(timeout=30)
                return wins(challenges, nonce)

            assert sum(pool.map(race, range(8))) == 1


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from coreason_enclave.attestation.challenges import FileChallenges
from coreason_enclave.errors import AttestationError
challenges = FileChallenges(Path(sys.argv[1]))
print("ready", flush=True)
for nonce in sys.stdin.readline().split():
    try:
        challenges.redeem(nonce, "a", float(sys.argv[2]))
        print(nonce)
    except AttestationError:
        pass
"""


def test_of_two_processes_at_once_exactly_one_uses_a_challenge(challenges: FileChallenges, tmp_path: Path) -> None:
    nonces = [challenges.issue("a", NOW) for _ in range(60)]
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "challenges"), str(NOW)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in both:
            assert process.stdin is not None
            process.stdin.write(" ".join(nonces) + "\n")
            process.stdin.flush()
        won = [process.communicate(timeout=60)[0].split() for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert sorted(won[0] + won[1]) == sorted(nonces)


class Whatever(RuleBasedStateMachine):
    """Any order of setting, answering, waiting and restarting, against a list in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.now = float(NOW)
        self.issued: dict[str, tuple[str, float]] = {}
        self.answered: set[str] = set()
        self.restart()

    @rule()
    def restart(self) -> None:
        self.challenges = FileChallenges(Path(self.folder.name) / "challenges")

    @rule(subject=st.sampled_from("ab"))
    def issue(self, subject: str) -> None:
        self.issued[self.challenges.issue(subject, self.now)] = (subject, self.now)

    @rule(seconds=st.sampled_from([-200.0, -61.0, -30.0, 1.0, 60.0, 119.0, 121.0, 500.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.integers(0, 100), subject=st.sampled_from("ab"))
    def redeem(self, which: int, subject: str) -> None:
        nonce = [*self.issued, "ab" * 32][which % (len(self.issued) + 1)]
        whose, since = self.issued.get(nonce, ("", 0.0))
        fits = nonce not in self.answered and whose == subject and since - 60 <= self.now <= since + CHALLENGE_S
        try:
            self.challenges.redeem(nonce, subject, self.now)
        except AttestationError:
            assert not fits or self.was_forgotten(since)
        else:
            assert fits
        if whose == subject:
            self.answered.add(nonce)

    def was_forgotten(self, since: float) -> bool:
        """Its time had passed when another was set; then the clock was set back."""
        return any(at > since + CHALLENGE_S for _, at in self.issued.values())

    @invariant()
    def no_more_files_than_open_challenges(self) -> None:
        folder = Path(self.folder.name) / "challenges"
        kept = len(list(folder.iterdir())) if folder.exists() else 0
        assert kept <= len(self.issued.keys() - self.answered)

    def teardown(self) -> None:
        self.folder.cleanup()


TestWhatever = Whatever.TestCase
TestWhatever.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
