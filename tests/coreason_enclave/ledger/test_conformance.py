"""What every privacy ledger does. Each implementation inherits the whole suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.accounting import (
    Accountant,
    NonPrivate,
    PoissonSampledGaussian,
    compose_epsilon,
    rdp_at,
    rdp_budget,
)
from coreason_enclave.errors import (
    ConfigurationError,
    EnclaveError,
    JobRejected,
    LedgerConflict,
    LedgerError,
    PrivacyBudgetExceededError,
    Reason,
)
from coreason_enclave.ledger import (
    Draw,
    EphemeralLedger,
    LedgerHead,
    LineageCaps,
    LineageRegistration,
    NoiseSource,
    NonPrivatePlan,
    PrivacyLedger,
    Reservation,
    RoundPlan,
    SqliteLedger,
    verify_export,
)
from coreason_enclave.schemas import PrivacyUnit

LINEAGE = "clinic/visits"
BINDING = "01" * 32
OTHER = "02" * 32
DIGEST = "ee" * 32
RAISED = LineageCaps(epsilon=9.0, delta=1e-5, job_epsilon=4.0, job_delta=1e-5)

Registration = Callable[..., LineageRegistration]
Plan = Callable[..., RoundPlan]


def drawn(round_number: int = 0, content: str = DIGEST) -> Draw:
    return Draw(round_number=round_number, content_mark=content, key_mark="77" * 32)


class LedgerConformance:
    """Subclasses say how to found a ledger."""

    durable: bool

    def create(self, folder: Path) -> PrivacyLedger:
        raise NotImplementedError

    @pytest.fixture
    def ledger(self, tmp_path: Path, make_registration: Registration) -> PrivacyLedger:
        ledger = self.create(tmp_path)
        ledger.register(make_registration())
        return ledger

    def reserve(self, ledger: PrivacyLedger, plan: Any, binding: str = BINDING, **kwargs: Any) -> Reservation:
        return ledger.reserve(LINEAGE, plan, binding, **{"require_all": True, **kwargs})

    def refuses(self, ledger: PrivacyLedger, error: type[EnclaveError], match: str, act: Callable[[], Any]) -> None:
        """The act is refused for the reason given, and leaves no trace."""
        before, claim = ledger.head(), ledger.lineage_claim(LINEAGE)
        with pytest.raises(error, match=match):
            act()
        assert ledger.head() == before
        assert ledger.lineage_claim(LINEAGE) == claim

    # registration

    def test_registering_the_same_again_does_nothing(
        self, ledger: PrivacyLedger, make_registration: Registration
    ) -> None:
        before = ledger.head()
        ledger.register(make_registration())
        assert ledger.head() == before
        assert ledger.registration(LINEAGE) == make_registration()

    @pytest.mark.parametrize(
        "change",
        [
            {"caps": LineageCaps(epsilon=9.0, delta=1e-5, job_epsilon=3.0, job_delta=1e-5)},
            {"caps": LineageCaps(epsilon=7.0, delta=1e-5, job_epsilon=3.0, job_delta=1e-5)},
            {"unit": PrivacyUnit.RECORD},
            {"public": True},
            {"nominal_units": 6_000},
            {"filter_order": 5},
        ],
    )
    def test_registering_otherwise_is_refused_and_opens_no_budget(
        self, ledger: PrivacyLedger, make_registration: Registration, make_plan: Plan, change: dict[str, Any]
    ) -> None:
        self.reserve(ledger, make_plan())
        (name,) = change
        self.refuses(ledger, LedgerConflict, name, lambda: ledger.register(make_registration(**change)))

    # raised caps

    def test_raised_caps_open_more_budget_and_forget_nothing(
        self, ledger: PrivacyLedger, make_registration: Registration, make_plan: Plan
    ) -> None:
        self.reserve(ledger, make_plan())
        dearer = make_plan(job_id="study-2", job_digest="cd" * 32, target_epsilon=4.0)
        self.refuses(ledger, JobRejected, "has caps.job_epsilon = 3", lambda: self.reserve(ledger, dearer))
        before = ledger.lineage_claim(LINEAGE)

        ledger.raise_caps(LINEAGE, RAISED, "the board agreed")

        claim = ledger.lineage_claim(LINEAGE)
        assert (claim.spent_pico, claim.open_reservations) == (before.spent_pico, before.open_reservations)
        assert claim.budget_pico == pytest.approx(rdp_budget(9.0, 1e-5, 4) * 1e12, rel=1e-8)
        assert claim.budget_pico > before.budget_pico
        assert ledger.registration(LINEAGE) == make_registration(caps=RAISED)
        assert self.reserve(ledger, dearer).step_limit == 10

    def test_a_raise_stands_in_the_export_with_its_reason(self, ledger: PrivacyLedger) -> None:
        ledger.raise_caps(LINEAGE, RAISED, "the board agreed")
        export = ledger.export()
        (entry,) = [line for line in export.splitlines() if b"caps_raised" in line]
        assert b"the board agreed" in entry
        assert verify_export(export).head == ledger.head()

    def test_the_caps_in_force_raise_nothing(self, ledger: PrivacyLedger, make_registration: Registration) -> None:
        before = ledger.head()
        ledger.raise_caps(LINEAGE, make_registration().caps, "again")
        assert ledger.head() == before
        ledger.raise_caps(LINEAGE, RAISED, "the board agreed")
        once = ledger.head()
        ledger.raise_caps(LINEAGE, RAISED, "the board agreed")
        ledger.register(make_registration(caps=RAISED))
        assert ledger.head() == once

    def test_the_former_caps_cannot_be_registered_again(
        self, ledger: PrivacyLedger, make_registration: Registration
    ) -> None:
        ledger.raise_caps(LINEAGE, RAISED, "the board agreed")
        self.refuses(ledger, LedgerConflict, "caps", lambda: ledger.register(make_registration()))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"epsilon": 7.0}, "epsilon of lineage .* is 8: a cap never falls to 7"),
            ({"job_epsilon": 2.0}, "job_epsilon of lineage .* is 3: a cap never falls to 2"),
            ({"delta": 9e-6, "job_delta": 9e-6}, "delta of lineage .* a cap never falls"),
            ({"job_delta": 9e-6}, "job_delta of lineage .* a cap never falls"),
            ({"epsilon": 20.0, "job_epsilon": 2.0}, "a cap never falls"),
            ({"delta": 2e-4}, "must stay below 1 / nominal_units"),
            ({"delta": 1e-3, "epsilon": 20.0}, "must stay below 1 / nominal_units"),
        ],
    )
    def test_a_cap_never_falls_and_delta_stays_small(
        self, ledger: PrivacyLedger, make_registration: Registration, change: dict[str, Any], words: str
    ) -> None:
        caps = replace(make_registration().caps, **change)
        self.refuses(ledger, LedgerConflict, words, lambda: ledger.raise_caps(LINEAGE, caps, "cheaper"))

    @pytest.mark.parametrize("why", ["", "one\nline", "x" * 1001])
    def test_a_raise_needs_a_reason_of_one_line(self, ledger: PrivacyLedger, why: str) -> None:
        self.refuses(
            ledger, ConfigurationError, "not a raise of caps: why", lambda: ledger.raise_caps(LINEAGE, RAISED, why)
        )

    @pytest.mark.parametrize("units", [100_000, 100_001, 10**9])
    def test_a_delta_of_one_in_the_number_of_persons_or_more_is_refused(
        self, ledger: PrivacyLedger, make_registration: Registration, units: int
    ) -> None:
        """Publishing one person's whole record would satisfy such a delta."""
        with pytest.raises(ConfigurationError, match="below 1 / nominal_units"):
            ledger.register(make_registration(lineage="clinic/many", nominal_units=units))
        ledger.register(make_registration(lineage="clinic/many", nominal_units=99_999))

    def test_a_job_with_a_delta_above_the_registered_one_is_refused(
        self, ledger: PrivacyLedger, make_plan: Plan
    ) -> None:
        for delta in (1.0001e-5, 2e-4, 0.1):  # 2e-4 is one in the 5,000 persons
            plan = make_plan(delta=delta)
            self.refuses(ledger, JobRejected, "has caps.job_delta", lambda plan=plan: self.reserve(ledger, plan))

    def test_an_unregistered_lineage_is_refused_by_every_operation(
        self, ledger: PrivacyLedger, make_plan: Plan
    ) -> None:
        acts: list[Callable[[], Any]] = [
            lambda: ledger.reserve("elsewhere", make_plan(), BINDING, require_all=False),
            lambda: ledger.affordable_steps("elsewhere", make_plan()),
            lambda: ledger.registration("elsewhere"),
            lambda: ledger.raise_caps("elsewhere", RAISED, "the board agreed"),
            lambda: ledger.lineage_claim("elsewhere"),
            lambda: ledger.job_claim("elsewhere", "study-1"),
            lambda: ledger.note_draw("elsewhere", "study-1", drawn()),
            lambda: ledger.draws("elsewhere", "study-1"),
            lambda: ledger.hold("elsewhere").__enter__(),
        ]
        for act in acts:
            with pytest.raises(LedgerError) as refusal:
                act()
            assert refusal.value.reason is Reason.LINEAGE_UNKNOWN

    def test_new_content_is_noted_once_and_opens_no_budget(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        self.reserve(ledger, make_plan())
        spent, seq = ledger.lineage_claim(LINEAGE).spent_pico, ledger.head().seq
        for content in (DIGEST, DIGEST, BINDING, DIGEST):
            ledger.note_draw(LINEAGE, "study-1", drawn(content=content))
        claim = ledger.lineage_claim(LINEAGE)
        assert claim.contents == (DIGEST, BINDING)
        assert claim.spent_pico == spent
        assert [draw.content_mark for draw in ledger.draws(LINEAGE, "study-1")] == [DIGEST, BINDING, DIGEST]
        assert ledger.head().seq == seq + 3

    def test_the_rounds_whose_content_changed_are_named(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        for number, content in enumerate((DIGEST, DIGEST, BINDING, BINDING, DIGEST), start=1):
            self.reserve(ledger, make_plan(round_number=number, steps=2))
            ledger.note_draw(LINEAGE, "study-1", drawn(number, content))
        assert ledger.job_claim(LINEAGE, "study-1").content_changed == (3, 5)

    def test_a_draw_is_of_a_reserved_round_and_under_one_key(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        self.reserve(ledger, make_plan(round_number=1, steps=2))
        self.refuses(ledger, LedgerError, "not reserved", lambda: ledger.note_draw(LINEAGE, "study-1", drawn(2)))
        ledger.note_draw(LINEAGE, "study-1", drawn(1))
        self.reserve(ledger, make_plan(round_number=2, steps=2))
        other = replace(drawn(2), key_mark="99" * 32)
        with pytest.raises(LedgerConflict, match="another key") as refused:
            ledger.note_draw(LINEAGE, "study-1", other)
        assert refused.value.reason is Reason.JOB_KEY_CHANGED
        assert ledger.draws(LINEAGE, "study-1") == (drawn(1),)
        assert ledger.draws(LINEAGE, "study-2") == ()

    def test_a_committed_round_draws_from_nothing_else(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        reserved = self.reserve(ledger, make_plan(round_number=1, steps=2))
        ledger.note_draw(LINEAGE, "study-1", drawn(1))
        ledger.commit(reserved.reservation_id, reserved.event, DIGEST)
        self.reserve(ledger, make_plan(round_number=2, steps=2))
        ledger.note_draw(LINEAGE, "study-1", drawn(2, BINDING))
        ledger.note_draw(LINEAGE, "study-1", drawn(1))  # its bytes are computed again
        other = drawn(1, BINDING)
        self.refuses(ledger, LedgerConflict, "is committed", lambda: ledger.note_draw(LINEAGE, "study-1", other))
        assert ledger.job_claim(LINEAGE, "study-1").content_changed == (2,)

    # reservation

    def test_a_reservation_charges_its_worst_case_at_once(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        reservation = self.reserve(ledger, make_plan())
        event = PoissonSampledGaussian(1.0, 0.05, 10)
        assert reservation.event == event
        assert reservation.step_limit == 10
        assert (reservation.recomputed, reservation.actual, reservation.prior_events) == (False, None, ())
        assert (reservation.target_epsilon, reservation.delta) == (3.0, 1e-5)
        spent = ledger.lineage_claim(LINEAGE).spent_pico
        assert spent == pytest.approx(rdp_at(event, 4) * 1e12, rel=1e-8)
        assert spent >= rdp_at(event, 4) * 1e12

    def test_the_same_computation_is_paid_for_once(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        first = self.reserve(ledger, make_plan())
        head = ledger.head()
        again = self.reserve(ledger, make_plan())
        assert again == replace(first, recomputed=True)
        assert ledger.head() == head
        ledger.commit(first.reservation_id, first.event, DIGEST)
        recomputed = replace(first, recomputed=True, actual=first.event, update_digest=DIGEST)
        assert self.reserve(ledger, make_plan()) == recomputed

    def test_a_reservation_is_recalled_for_the_same_computation_alone(
        self, ledger: PrivacyLedger, make_plan: Plan
    ) -> None:
        assert ledger.recall(LINEAGE, make_plan(), BINDING) is None
        first = self.reserve(ledger, make_plan())
        head = ledger.head()
        assert ledger.recall(LINEAGE, make_plan(), BINDING) == replace(first, recomputed=True)
        for plan, binding in ((make_plan(), OTHER), (replace(make_plan(), noise_multiplier=9.0), BINDING)):
            with pytest.raises(LedgerConflict, match="another computation"):
                ledger.recall(LINEAGE, plan, binding)
        assert ledger.recall(LINEAGE, replace(make_plan(), round_number=2), BINDING) is None
        assert ledger.head() == head
        with pytest.raises(LedgerError):
            ledger.recall("nowhere", make_plan(), BINDING)

    @pytest.mark.parametrize("commit_first", [False, True])
    def test_the_same_round_for_another_computation_is_refused(
        self, ledger: PrivacyLedger, make_plan: Plan, commit_first: bool
    ) -> None:
        first = self.reserve(ledger, make_plan())
        if commit_first:
            ledger.commit(first.reservation_id, first.event, DIGEST)
        self.refuses(ledger, LedgerConflict, "another computation", lambda: self.reserve(ledger, make_plan(), OTHER))
        fewer = make_plan(steps=9)
        self.refuses(ledger, LedgerConflict, "another computation", lambda: self.reserve(ledger, fewer))
        seeded = make_plan(noise_source=NoiseSource.UNSAFE_SEEDED)
        self.refuses(ledger, LedgerConflict, "another computation", lambda: self.reserve(ledger, seeded))

    @pytest.mark.parametrize(
        "change",
        [
            {"noise_multiplier": 2.0},
            {"noise_multiplier": 0.9},
            {"sample_rate": 0.04},
            {"target_epsilon": 2.9},
            {"delta": 9e-6},
            {"total_steps": 101},
            {"job_digest": "cd" * 32},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_job_keeps_the_terms_of_its_first_reservation(
        self, ledger: PrivacyLedger, make_plan: Plan, change: dict[str, Any]
    ) -> None:
        self.reserve(ledger, make_plan())
        later = make_plan(round_number=1, **change)
        self.refuses(ledger, LedgerConflict, next(iter(change)), lambda: self.reserve(ledger, later))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"unit": PrivacyUnit.RECORD}, "needs unit person"),
            ({"delta": 2e-5}, r"caps\.job_delta"),
            ({"target_epsilon": 3.1}, r"caps\.job_epsilon"),
        ],
    )
    def test_a_job_outside_the_sites_own_rules_is_refused(
        self, ledger: PrivacyLedger, make_plan: Plan, change: dict[str, Any], match: str
    ) -> None:
        self.refuses(ledger, JobRejected, match, lambda: self.reserve(ledger, make_plan(**change)))
        self.refuses(ledger, JobRejected, match, lambda: ledger.affordable_steps(LINEAGE, make_plan(**change)))

    def test_a_person_level_job_on_a_record_level_lineage_is_refused_too(
        self, ledger: PrivacyLedger, make_registration: Registration, make_plan: Plan
    ) -> None:
        ledger.register(make_registration(lineage="rows", unit=PrivacyUnit.RECORD))
        with pytest.raises(JobRejected, match="needs unit record"):
            ledger.reserve("rows", make_plan(), BINDING, require_all=True)

    @pytest.mark.parametrize("binding", ["", "01", "zz" * 32, "AB" * 32, "01" * 33])
    def test_a_binding_that_is_no_digest_is_refused(self, ledger: PrivacyLedger, make_plan: Plan, binding: str) -> None:
        self.refuses(ledger, ConfigurationError, "binding", lambda: self.reserve(ledger, make_plan(), binding))

    # the job's own cap

    def test_a_job_ends_exactly_at_its_cap_and_not_one_step_later(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        assert ledger.affordable_steps(LINEAGE, make_plan(steps=100)) == 68
        first = self.reserve(ledger, make_plan(steps=60))
        assert ledger.affordable_steps(LINEAGE, make_plan(steps=60, round_number=1)) == 8
        last = self.reserve(ledger, make_plan(steps=8, round_number=1))
        assert last.prior_events == (first.event,)
        assert compose_epsilon([first.event, last.event], 1e-5).epsilon <= 3.0
        one_more = make_plan(steps=1, round_number=2)
        assert ledger.affordable_steps(LINEAGE, one_more) == 0
        for require_all in (False, True):
            self.refuses(
                ledger,
                PrivacyBudgetExceededError,
                "job's own cap",
                lambda require_all=require_all: self.reserve(ledger, one_more, require_all=require_all),
            )

    def test_a_round_across_the_cap_gets_a_limit_unless_all_of_it_is_required(
        self, ledger: PrivacyLedger, make_plan: Plan
    ) -> None:
        wide = make_plan(steps=100)
        self.refuses(ledger, PrivacyBudgetExceededError, "68 are", lambda: self.reserve(ledger, wide))
        granted = self.reserve(ledger, wide, require_all=False)
        assert granted.step_limit == 68
        assert granted.event == PoissonSampledGaussian(1.0, 0.05, 68)
        self.refuses(ledger, PrivacyBudgetExceededError, "68 are", lambda: self.reserve(ledger, wide))

    def test_a_job_never_runs_more_than_its_own_schedule(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        self.reserve(ledger, make_plan(total_steps=15))
        second = make_plan(total_steps=15, round_number=1)
        assert self.reserve(ledger, second, require_all=False).step_limit == 5

    def test_steps_that_did_not_run_can_be_used_by_a_later_round_of_the_job(
        self, ledger: PrivacyLedger, make_plan: Plan
    ) -> None:
        first = self.reserve(ledger, make_plan(steps=60))
        ledger.commit(first.reservation_id, first.event.with_steps(10), None)
        later = self.reserve(ledger, make_plan(steps=60, round_number=1), require_all=False)
        assert later.step_limit == 58
        claim = ledger.job_claim(LINEAGE, "study-1")
        assert claim.steps_counted == 68
        assert claim.guarantee.epsilon <= 3.0

    # the lineage's budget

    def test_jobs_share_the_lineages_budget_until_it_is_gone(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        budget = rdp_budget(8.0, 1e-5, 4)
        affordable = int(budget / rdp_at(PoissonSampledGaussian(1.0, 0.05, 1), 4))
        granted = 0
        for number in range(20):
            job = make_plan(job_id=f"job-{number}", job_digest=f"{number:064x}", steps=68)
            if not ledger.affordable_steps(LINEAGE, job):
                break
            granted += self.reserve(ledger, job, require_all=False).step_limit
        claim = ledger.lineage_claim(LINEAGE)
        assert granted in (affordable, affordable - 1)
        assert claim.spent_epsilon <= 8.0
        assert claim.spent_epsilon > 7.95
        assert claim.guarantee.epsilon == 8.0
        late = make_plan(job_id="late")
        for require_all in (False, True):
            self.refuses(
                ledger,
                PrivacyBudgetExceededError,
                "budget of lineage",
                lambda: self.reserve(ledger, late, require_all=require_all),  # noqa: B023
            )

    def test_the_filter_gives_back_what_did_not_run(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        reservation = self.reserve(ledger, make_plan())
        whole = ledger.lineage_claim(LINEAGE).spent_pico
        ledger.commit(reservation.reservation_id, reservation.event.with_steps(3), DIGEST)
        assert ledger.lineage_claim(LINEAGE).spent_pico * 10 == whole * 3

    def test_what_is_never_committed_stays_spent(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        self.reserve(ledger, make_plan())
        abandoned = ledger.lineage_claim(LINEAGE)
        later = self.reserve(ledger, make_plan(job_id="next"))
        ledger.commit(later.reservation_id, later.event, DIGEST)
        after = ledger.lineage_claim(LINEAGE)
        assert after.spent_pico == 2 * abandoned.spent_pico
        assert (abandoned.open_reservations, after.open_reservations) == (1, 1)

    def test_lineages_do_not_share_a_budget(
        self, ledger: PrivacyLedger, make_registration: Registration, make_plan: Plan
    ) -> None:
        ledger.register(make_registration(lineage="other"))
        self.reserve(ledger, make_plan())
        assert ledger.lineage_claim("other").spent_pico == 0

    # commit

    def test_committing_the_same_again_does_nothing(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        reservation = self.reserve(ledger, make_plan())
        ledger.commit(reservation.reservation_id, reservation.event, DIGEST)
        head = ledger.head()
        ledger.commit(reservation.reservation_id, reservation.event, DIGEST)
        assert ledger.head() == head

    @pytest.mark.parametrize(
        "actual",
        [
            PoissonSampledGaussian(1.0, 0.05, 11),
            PoissonSampledGaussian(0.9, 0.05, 10),
            PoissonSampledGaussian(2.0, 0.05, 10),
            PoissonSampledGaussian(1.0, 0.06, 10),
            NonPrivate(),
        ],
        ids=["more steps", "less noise", "more noise", "a larger sample", "no mechanism"],
    )
    def test_what_ran_must_be_what_was_reserved(
        self, ledger: PrivacyLedger, make_plan: Plan, actual: PoissonSampledGaussian
    ) -> None:
        name = self.reserve(ledger, make_plan()).reservation_id
        self.refuses(ledger, LedgerConflict, "reserv", lambda: ledger.commit(name, actual, DIGEST))

    def test_a_committed_round_cannot_be_committed_otherwise(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        reservation = self.reserve(ledger, make_plan())
        name, event = reservation.reservation_id, reservation.event
        ledger.commit(name, event, DIGEST)
        self.refuses(ledger, LedgerConflict, "another committed event", lambda: ledger.commit(name, event, OTHER))
        self.refuses(ledger, LedgerConflict, "another committed event", lambda: ledger.commit(name, event, None))
        self.refuses(
            ledger, LedgerConflict, "another committed event", lambda: ledger.commit(name, event.with_steps(9), DIGEST)
        )

    def test_committing_what_was_never_reserved_is_refused(self, ledger: PrivacyLedger) -> None:
        event = PoissonSampledGaussian(1.0, 0.05, 1)
        self.refuses(ledger, LedgerError, "no reservation", lambda: ledger.commit(OTHER, event, None))
        self.refuses(ledger, ConfigurationError, "update_digest", lambda: ledger.commit(OTHER, event, "x"))

    # non-private training

    def test_non_private_training_is_refused_on_a_private_lineage(
        self, ledger: PrivacyLedger, make_non_private: Callable[..., NonPrivatePlan]
    ) -> None:
        self.refuses(ledger, JobRejected, "not public", lambda: self.reserve(ledger, make_non_private()))

    def test_non_private_training_on_a_public_lineage_leaves_no_finite_claim_for_the_union(
        self,
        ledger: PrivacyLedger,
        make_registration: Registration,
        make_plan: Plan,
        make_non_private: Callable[..., NonPrivatePlan],
    ) -> None:
        ledger.register(make_registration(lineage="open", public=True))
        assert ledger.lineage_claim("open").guarantee is not None
        ledger.reserve("open", make_plan(), BINDING, require_all=True)
        twin = ledger.reserve("open", make_non_private(), OTHER, require_all=True)
        assert twin.event == NonPrivate()
        ledger.commit(twin.reservation_id, NonPrivate(), DIGEST)
        claim = ledger.lineage_claim("open")
        assert claim.non_private
        assert claim.guarantee is None
        assert ledger.job_claim("open", "twin").guarantee is None
        assert ledger.job_claim("open", "study-1").guarantee.is_finite

    def test_a_job_cannot_change_between_private_and_non_private(
        self,
        ledger: PrivacyLedger,
        make_registration: Registration,
        make_plan: Plan,
        make_non_private: Callable[..., NonPrivatePlan],
    ) -> None:
        ledger.register(make_registration(lineage="open", public=True))
        ledger.reserve("open", make_plan(job_id="twin"), BINDING, require_all=True)
        with pytest.raises(LedgerConflict, match="another mechanism"):
            ledger.reserve("open", make_non_private(round_number=1), OTHER, require_all=True)

    # claims

    def test_a_jobs_claim_is_by_pld_over_what_it_reserved_without_refunds(
        self, ledger: PrivacyLedger, make_plan: Plan
    ) -> None:
        first = self.reserve(ledger, make_plan())
        ledger.commit(first.reservation_id, first.event.with_steps(4), DIGEST)
        self.reserve(ledger, make_plan(round_number=1))
        claim = ledger.job_claim(LINEAGE, "study-1")
        assert (claim.steps_run, claim.steps_counted, claim.steps_allowed) == (4, 20, 68)
        assert claim.open_reservations == 1
        assert claim.guarantee.accountant is Accountant.PLD
        assert claim.guarantee.epsilon == compose_epsilon([PoissonSampledGaussian(1.0, 0.05, 20)], 1e-5).epsilon
        assert claim.guarantee.epsilon < claim.at_schedule.epsilon <= 3.0
        assert claim.guarantee.unit is PrivacyUnit.PERSON
        with pytest.raises(LedgerError, match="reserved nothing"):
            ledger.job_claim(LINEAGE, "nobody")

    def test_unsafe_noise_shows_in_every_claim_over_it(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        self.reserve(ledger, make_plan(noise_source=NoiseSource.UNSAFE_SEEDED))
        assert ledger.lineage_claim(LINEAGE).noise_sources == (NoiseSource.UNSAFE_SEEDED,)
        self.reserve(ledger, make_plan(round_number=1))
        both = {NoiseSource.SITE_KEYSTREAM, NoiseSource.UNSAFE_SEEDED}
        assert set(ledger.job_claim(LINEAGE, "study-1").noise_sources) == both

    def test_claims_say_whether_the_account_is_durable(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        self.reserve(ledger, make_plan())
        assert ledger.durable is self.durable
        assert ledger.lineage_claim(LINEAGE).durable is self.durable
        assert ledger.job_claim(LINEAGE, "study-1").durable is self.durable
        assert verify_export(ledger.export()).durable is self.durable

    # history

    def test_every_entry_moves_the_head_and_all_earlier_heads_stay_known(
        self, ledger: PrivacyLedger, make_plan: Plan
    ) -> None:
        heads = [ledger.head()]
        for number in range(3):
            self.reserve(ledger, make_plan(round_number=number))
            heads.append(ledger.head())
        assert [head.seq for head in heads] == list(range(heads[0].seq, heads[0].seq + 4))
        assert all(ledger.knows(head) for head in heads)
        assert not ledger.knows(LedgerHead(seq=heads[1].seq, hash=heads[2].hash))
        assert not ledger.knows(LedgerHead(seq=99, hash=heads[2].hash))
        assert not ledger.knows(LedgerHead(seq=-1, hash=heads[-1].hash))

    LOST = LedgerHead(seq=41, hash="9f" * 32)

    def test_an_acknowledged_head_is_known_and_gives_nothing_back(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        self.reserve(ledger, make_plan())
        before = ledger.lineage_claim(LINEAGE)
        assert not ledger.knows(self.LOST)
        ledger.acknowledge(self.LOST, "A. Ito", "the disk failed, the backup is of Monday")
        assert ledger.knows(self.LOST)
        assert not ledger.knows(replace(self.LOST, seq=40))
        assert not ledger.knows(replace(self.LOST, hash="9e" * 32))
        assert ledger.lineage_claim(LINEAGE) == before

    def test_an_acknowledgement_is_one_entry_with_name_and_reason(self, ledger: PrivacyLedger) -> None:
        before = ledger.head()
        ledger.acknowledge(self.LOST, "A. Ito", "the disk failed")
        ledger.acknowledge(self.LOST, "B. Sy", "again")  # known by now: nothing happens
        assert ledger.head().seq == before.seq + 1
        (said,) = verify_export(ledger.export()).acknowledged
        assert (said.head, said.by, said.why) == (self.LOST, "A. Ito", "the disk failed")
        assert said.time > 1_700_000_000

    def test_a_head_of_its_own_history_needs_no_acknowledgement(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        earlier = ledger.head()
        self.reserve(ledger, make_plan())
        before = ledger.head()
        ledger.acknowledge(earlier, "A. Ito", "to be sure")
        assert ledger.head() == before

    @pytest.mark.parametrize(
        ("head", "by", "why"),
        [
            (LOST, "", "the disk failed"),
            (LOST, "A. Ito", ""),
            (LOST, "A. Ito", "one line\nand another"),
            (LOST, "x" * 121, "the disk failed"),
            (LedgerHead(seq=-1, hash="9f" * 32), "A. Ito", "the disk failed"),
            (LedgerHead(seq=41, hash="9f"), "A. Ito", "the disk failed"),
        ],
    )
    def test_an_acknowledgement_without_person_reason_or_head_is_refused(
        self, ledger: PrivacyLedger, head: LedgerHead, by: str, why: str
    ) -> None:
        self.refuses(ledger, ConfigurationError, "not an acknowledgement", lambda: ledger.acknowledge(head, by, why))

    def test_two_ledgers_never_share_a_head(self, tmp_path: Path) -> None:
        assert self.create(tmp_path / "a").head() != self.create(tmp_path / "b").head()

    def test_an_export_replays_to_the_same_claims(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        done = self.reserve(ledger, make_plan())
        ledger.commit(done.reservation_id, done.event, DIGEST)
        findings = verify_export(ledger.export())
        assert findings.head == ledger.head()
        assert findings.lineages == (ledger.lineage_claim(LINEAGE),)
        assert findings.jobs == (ledger.job_claim(LINEAGE, "study-1"),)

    # holding

    def test_a_lineage_is_held_by_one_session_at_a_time(
        self, ledger: PrivacyLedger, make_registration: Registration, make_plan: Plan
    ) -> None:
        ledger.register(make_registration(lineage="other"))
        with ledger.hold(LINEAGE):
            with pytest.raises(LedgerError, match="in use by another session"), ledger.hold(LINEAGE):
                pass
            with ledger.hold("other"):
                self.reserve(ledger, make_plan())
        with pytest.raises(ZeroDivisionError), ledger.hold(LINEAGE):
            raise ZeroDivisionError
        with ledger.hold(LINEAGE):
            pass

    def test_a_closed_ledger_refuses(self, ledger: PrivacyLedger, make_plan: Plan) -> None:
        ledger.close()
        for act in (ledger.head, ledger.export, lambda: self.reserve(ledger, make_plan())):
            with pytest.raises(LedgerError, match="closed"):
                act()


class TestSqliteLedger(LedgerConformance):
    durable = True

    def create(self, folder: Path) -> PrivacyLedger:
        return SqliteLedger(folder / "site" / "ledger.db")


class TestEphemeralLedger(LedgerConformance):
    durable = False

    def create(self, folder: Path) -> PrivacyLedger:
        return EphemeralLedger()
