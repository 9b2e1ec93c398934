"""Random histories of jobs against a model of a few lines: the account never drifts, forgets or overspends."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coreason_enclave.accounting import PoissonSampledGaussian, rdp_at, rdp_budget
from coreason_enclave.errors import LedgerConflict, PrivacyBudgetExceededError
from coreason_enclave.ledger import (
    EphemeralLedger,
    LineageCaps,
    LineageRegistration,
    NoiseSource,
    PrivacyLedger,
    RoundPlan,
    SqliteLedger,
    verify_export,
)
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit

LINEAGE = "clinic/visits"
ORDER = 6
AFFORDABLE = 68
CAPS = LineageCaps(epsilon=5.0, delta=1e-5, job_epsilon=3.0, job_delta=1e-5)
COST = rdp_at(PoissonSampledGaussian(1.0, 0.05, 1), ORDER)


@dataclass
class ModelRound:
    """What one round may still cost: its limit while open, what ran once committed."""

    name: str
    limit: int
    asked: int
    ran: int | None = None

    @property
    def steps(self) -> int:
        return self.limit if self.ran is None else self.ran


class Histories(RuleBasedStateMachine):
    def create(self) -> PrivacyLedger:
        return EphemeralLedger()

    @initialize()
    def register(self) -> None:
        self.ledger = self.create()
        self.ledger.register(
            LineageRegistration(
                lineage=LINEAGE,
                unit=PrivacyUnit.RECORD,
                neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
                nominal_units=1_000,
                public=False,
                caps=CAPS,
                filter_order=ORDER,
            )
        )
        self.model: dict[tuple[str, int], ModelRound] = {}
        self.caps, self.raises = CAPS, 0

    def plan(self, job: str, number: int, steps: int) -> RoundPlan:
        return RoundPlan(
            job_id=job,
            job_digest="ab" * 32,
            round_number=number,
            unit=PrivacyUnit.RECORD,
            noise_multiplier=1.0,
            sample_rate=0.05,
            steps=steps,
            total_steps=90,
            target_epsilon=3.0,
            delta=1e-5,
            noise_source=NoiseSource.SITE_KEYSTREAM,
        )

    def affordable(self, job: str, steps: int) -> int:
        of_job = sum(record.steps for (name, _), record in self.model.items() if name == job)
        of_all = sum(record.steps for record in self.model.values())
        return max(0, min(steps, AFFORDABLE - of_job, math.floor(self.budget / COST) - of_all))

    @property
    def budget(self) -> float:
        return rdp_budget(self.caps.epsilon, self.caps.delta, ORDER)

    @rule(job=st.sampled_from("abcdef"), number=st.integers(0, 5), steps=st.integers(1, 60), all_of_it=st.booleans())
    def reserve(self, job: str, number: int, steps: int, all_of_it: bool) -> None:
        known = self.model.get((job, number))
        plan, binding = self.plan(job, number, steps), "01" * 32
        if known is not None and steps != known.asked:
            with pytest.raises(LedgerConflict):
                self.ledger.reserve(LINEAGE, plan, binding, all_of_it)
            return
        expected = known.limit if known is not None else self.affordable(job, steps)
        if expected == 0 or (all_of_it and expected < steps):
            with pytest.raises(PrivacyBudgetExceededError):
                self.ledger.reserve(LINEAGE, plan, binding, all_of_it)
            return
        granted = self.ledger.reserve(LINEAGE, plan, binding, all_of_it)
        assert granted.recomputed is (known is not None)
        assert granted.step_limit == expected
        if known is None:
            self.model[(job, number)] = ModelRound(granted.reservation_id, expected, steps)

    @precondition(lambda self: any(record.ran is None for record in self.model.values()))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from([r for r in self.model.values() if r.ran is None]))
        ran = data.draw(st.integers(0, record.limit))
        self.ledger.commit(record.name, PoissonSampledGaussian(1.0, 0.05, ran), None)
        record.ran = ran

    @precondition(lambda self: any(record.ran is not None for record in self.model.values()))
    @rule(data=st.data())
    def commit_something_else(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from([r for r in self.model.values() if r.ran is not None]))
        with pytest.raises(LedgerConflict):
            self.ledger.commit(record.name, PoissonSampledGaussian(1.0, 0.05, (record.ran or 0) + 1), None)

    @rule(by=st.floats(0, 1.5), of_job=st.floats(0, 1.5))
    def raise_caps(self, by: float, of_job: float) -> None:
        higher = replace(self.caps, epsilon=self.caps.epsilon + by)
        higher = replace(higher, job_epsilon=min(self.caps.job_epsilon + of_job, higher.epsilon))
        before, spent = self.ledger.head(), self.ledger.lineage_claim(LINEAGE).spent_pico
        self.ledger.raise_caps(LINEAGE, higher, "the board agreed")
        assert (self.ledger.head() == before) is (higher == self.caps)
        assert self.ledger.lineage_claim(LINEAGE).spent_pico == spent
        self.raises += higher != self.caps
        self.caps = higher

    @rule(name=st.sampled_from(["epsilon", "delta", "job_epsilon", "job_delta"]), share=st.floats(0.1, 0.99))
    def lower_a_cap(self, name: str, share: float) -> None:
        lower = {f.name: getattr(self.caps, f.name) for f in fields(self.caps)}
        lower[name] *= share
        lower["job_epsilon"] = min(lower["job_epsilon"], lower["epsilon"])
        lower["job_delta"] = min(lower["job_delta"], lower["delta"])
        before = self.ledger.head()
        with pytest.raises(LedgerConflict, match="never falls"):
            self.ledger.raise_caps(LINEAGE, LineageCaps(**lower), "cheaper")
        assert self.ledger.head() == before

    @invariant()
    def the_account_is_the_models(self) -> None:
        claim = self.ledger.lineage_claim(LINEAGE)
        steps = sum(record.steps for record in self.model.values())
        assert claim.spent_pico == pytest.approx(steps * COST * 1e12, rel=1e-8)
        assert claim.spent_pico >= steps * COST * 1e12 * (1 - 1e-12)
        assert 0 <= claim.spent_pico <= claim.budget_pico
        assert claim.budget_pico == pytest.approx(self.budget * 1e12, rel=1e-8)
        assert self.ledger.registration(LINEAGE).caps == self.caps
        assert self.ledger.registration(LINEAGE).filter_order == ORDER
        assert claim.open_reservations == sum(record.ran is None for record in self.model.values())

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            export = self.ledger.export()
            assert verify_export(export).head == self.ledger.head()
            assert export.count(b"caps_raised") == self.raises
            self.ledger.close()


class DurableHistories(Histories):
    """The same, with the process ending and beginning anew at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    def create(self) -> PrivacyLedger:
        return SqliteLedger(Path(self.folder.name) / "ledger.db")

    @rule()
    def reopen(self) -> None:
        head = self.ledger.head()
        self.ledger.close()
        self.ledger = self.create()
        assert self.ledger.head() == head

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestEphemeralHistories = Histories.TestCase
TestEphemeralHistories.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestDurableHistories = DurableHistories.TestCase
TestDurableHistories.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
