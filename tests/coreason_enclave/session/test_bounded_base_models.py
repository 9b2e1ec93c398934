"""A base model outside of the site's bounds is refused before anything is reserved or any row is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coreason_enclave.errors import JobRejected, Reason

Federation = Any

LARGE = np.array([[1e9, -1e9, 1.0]], np.float32)
REFUSED: dict[str, tuple[Any, Reason, str]] = {
    "weights that cancel": (LARGE, Reason.POLICY, "max_base_weight is 10000, but the base model's linear.weight"),
    "the largest numbers": (LARGE * np.float32(3e29), Reason.POLICY, "max_base_weight"),
    "NaN": (LARGE * np.float32("nan"), Reason.NON_FINITE, "linear.weight is not finite"),
    "infinity": (LARGE * np.float32("inf"), Reason.NON_FINITE, "linear.weight is not finite"),
    "outputs that are too large": (np.full((1, 3), 9e3, np.float32), Reason.POLICY, "max_logit is 10000"),
}


@pytest.mark.parametrize(("weight", "reason", "message"), REFUSED.values(), ids=REFUSED)
def test_such_a_base_model_is_refused_and_costs_nothing(
    weight: Any, reason: Reason, message: str, federation: Federation
) -> None:
    site = federation.create()
    (site.folder / "data/clinic/visits/rows.csv").write_text("no table of rows")
    opened = site.open(clock=federation.clock)
    before = site.ledger_entries()
    with pytest.raises(JobRejected, match=message) as refused:
        opened.session.run(federation.order(federation.job(), {**federation.weights(), "linear.weight": weight}))
    opened.close()
    assert refused.value.reason is reason
    assert site.ledger_entries() == before


def test_a_site_sets_its_own_bounds(federation: Federation) -> None:
    strict = federation.create(policy={"max_base_weight": 0.4})
    opened = strict.open(clock=federation.clock)
    assert opened.session.run(federation.order(federation.job(), federation.weights(0.1))).arrays
    with pytest.raises(JobRejected, match=r"max_base_weight is 0\.4"):
        opened.session.run(federation.order(federation.job(job_id="study-2"), federation.weights(0.5)))
    opened.close()
