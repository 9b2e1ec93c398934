"""``summary.md``: the demonstration's utility, its privacy cost, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from aegis.demo.randhie_data import CentralReference
from aegis.demo.recipe import DemoOptions
from aegis.demo.setup import DISJOINT_UNITS
from aegis.stores import RoundRecord
from coreason_enclave.schemas import FederationJob, PrivacyUnit

_SIMULATED = (
    "> **SIMULATED**: attestation is simulated (development profile) and all sites run on one machine, on public "
    "data. The privacy mechanism, ledgers, signatures, admission and aggregation are real."
)
_EVALUATION = (
    "The task: does a person see a doctor in a study year? A quarter of all people, whole families with all their "
    "years, is the public held-out test set, set aside before any training. No family is in both parts: people of one "
    "site and plan with the same income count as one family. Sites report no loss and no accuracy, because both are "
    "computed from private rows."
)
_CHECK = "`aegis verify` on this folder recomputes epsilon from each site's ledger and compares model, log and ledgers."
_TWIN = (
    "- The non-private baseline used the same public people, and so did the repetitions, under separate budgets: the "
    "epsilon above is the price of one private job, not of this whole folder. The ledgers record the rest."
)
_OPTIMISM = (
    "- Recipe and features were chosen by trial on this public dataset, the evaluation quarter included: the AUC "
    "values are slightly optimistic, and do not show that the private job is better than the central one. On private "
    "data, that choice would cost privacy budget."
)


@dataclass(frozen=True)
class DemoResult:
    """The data behind the summary.

    Attributes:
        run: the run's name.
        job: as ordered, every privacy value explicit.
        private, twin: rounds of the private job and of the same job without privacy.
        ledger_epsilon: each site's ledger's epsilon for the private job, unanswered rounds included.
        repeats: last rounds of the private job repeated on new sites with fresh keys.
        interval: 95 % interval of the private job's AUC, by bootstrap over families.
        central: models without privacy on all sites' rows in one place.
        attackers: names of the sites under a simulated attacker's control.
    """

    run: str
    options: DemoOptions
    job: FederationJob
    private: Sequence[RoundRecord]
    twin: Sequence[RoundRecord]
    repeats: Sequence[RoundRecord]
    ledger_epsilon: Mapping[str, float]
    interval: tuple[float, float]
    central: CentralReference
    attackers: Sequence[str]

    def aucs(self) -> list[float]:
        """Return the AUC of the private job and of each repetition."""
        return [record.metrics["auc"] for record in (self.private[-1], *self.repeats)]

    def epsilon(self) -> float:
        """Return the largest epsilon of any site in this job, from the sites' own ledgers."""
        return max(self.ledger_epsilon.values())

    def to_dict(self) -> dict[str, object]:
        """Return the figures, for scripts."""
        last = self.private[-1]
        return {
            "run": self.run,
            "options": self.options.to_dict(),
            "auc": last.metrics["auc"],
            "accuracy": last.metrics["accuracy"],
            "loss": last.metrics["loss"],
            "auc_of_runs": self.aucs(),
            "auc_without_privacy": self.twin[-1].metrics["auc"],
            "auc_interval": self.interval,
            "auc_central_logistic": self.central.logistic_auc,
            "auc_central_boosted_trees": self.central.boosted_trees_auc,
            "epsilon": self.epsilon(),
            "delta": self.job.privacy.delta,
            "unit": str(self.job.privacy.unit),
            "noise_multiplier": self.job.privacy.noise_multiplier,
            "simulated_attackers": list(self.attackers),
            "attestation": "simulated",
        }


def headline(result: DemoResult) -> list[str]:
    """Return the closing lines of the demonstration."""
    last, aucs = result.private[-1], result.aucs()
    attacked = f" with {', '.join(result.attackers)} taken over by a SIMULATED attacker" if result.attackers else ""
    spread = f", {mean(aucs):.4f} ± {stdev(aucs):.4f} over {len(aucs)} runs with new keys" if len(aucs) > 1 else ""
    return [
        f"AUC {last.metrics['auc']:.3f} on the held-out test set{attacked}{spread}.",
        _without_privacy(result),
        _price(result),
        "SIMULATED: attestation is simulated, and all sites run on this machine on public data.",
    ]


def _without_privacy(result: DemoResult) -> str:
    central = result.central
    return (
        f"Without privacy: {result.twin[-1].metrics['auc']:.3f} for the same job, "
        f"{central.logistic_auc:.3f} with all rows in one place (boosted trees {central.boosted_trees_auc:.3f})."
    )


def _price(result: DemoResult) -> str:
    privacy = result.job.privacy
    return (
        f"Price: epsilon {result.epsilon():.3f} at delta {privacy.delta:g} per {privacy.unit}, at each site, for this "
        f"job (accountant PLD, one {privacy.unit} added or removed, Poisson sampling)."
    )


def write_summary(result: DemoResult) -> str:
    """Return the summary in Markdown."""
    lines = [
        f"# {result.run}",
        "",
        _SIMULATED,
        "",
        *headline(result),
        "",
        "![utility](plots/utility.png)",
        "![epsilon](plots/epsilon.png)",
        "",
        "## Utility on the declared public evaluation set",
        "",
        _EVALUATION,
        "",
        _inputs(result.options),
        "",
        *_table(("", "AUC", "95 % interval", "accuracy", "loss"), _utility_rows(result)),
        "",
        "## Privacy, site by site",
        "",
        *_table(
            ("site", "attestation", "steps", "epsilon of this job", "update used in the last round"), _site_rows(result)
        ),
        "",
        *_guarantee(result),
        "",
        "## Limits of this demonstration",
        "",
        *_limits(result),
        "",
        "## How to check the run",
        "",
        _CHECK,
        "",
    ]
    return "\n".join(lines)


def _utility_rows(result: DemoResult) -> list[tuple[str, ...]]:
    rows = [("private job", _span(result.interval), result.private[-1].metrics)]
    rows += [(f"repeated with new keys, {i}", "", record.metrics) for i, record in enumerate(result.repeats, start=1)]
    rows += [("same job without privacy", "", result.twin[-1].metrics)]
    table = [(name, f"{m['auc']:.4f}", span, f"{m['accuracy']:.4f}", f"{m['loss']:.4f}") for name, span, m in rows]
    central = result.central
    return [
        *table,
        (
            "central logistic regression, no privacy",
            f"{central.logistic_auc:.4f}",
            _span(central.logistic_interval),
            "",
            "",
        ),
        (
            "central boosted trees, no privacy",
            f"{central.boosted_trees_auc:.4f}",
            _span(central.boosted_trees_interval),
            "",
            "",
        ),
    ]


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _inputs(options: DemoOptions) -> str:
    known = "facts known at the start of the year"
    if options.unit is PrivacyUnit.RECORD:
        return (
            f"The model's inputs: {known} alone. Earlier years belong to a person, and this job protects single rows."
        )
    return (
        f"The model's inputs: {known}, and five histories of the same person's visits in earlier study years "
        "([[history]] in dataset.toml, computed inside the person). Intervals: bootstrap over the test set's families."
    )


def _site_rows(result: DemoResult) -> list[tuple[str, ...]]:
    last = result.private[-1]
    return [
        (
            site,
            str(last.provenance.get(site, "refused")),
            str(last.steps.get(site, 0)),
            f"{epsilon:.4f}",
            "yes" if site in last.used else "no",
        )
        for site, epsilon in sorted(result.ledger_epsilon.items())
    ]


def _guarantee(result: DemoResult) -> list[str]:
    privacy, job = result.job.privacy, result.job
    mechanism = (
        f"- Mechanism: DP-SGD, clipping norm {privacy.max_grad_norm:g} per {privacy.unit}, noise multiplier "
        f"{privacy.noise_multiplier:.4f}, Poisson sample rate {privacy.sample_rate:g}, {job.total_steps} steps."
    )
    guarantee = (
        f"- Guarantee at each site: ({result.epsilon():.4f}, {privacy.delta:g})-differential privacy for this job, "
        f"unit {privacy.unit}, neighbours differ by one {privacy.unit} added or removed; accountant: PLD."
    )
    across = f"- Across sites: the largest epsilon, if no person has data at two sites (claimed by {DISJOINT_UNITS})."
    return [mechanism, guarantee, across, f"- Randomness: {_randomness(result.options)}"]


def _randomness(options: DemoOptions) -> str:
    if options.seed is None:
        return "secret keys, created and kept by each site; another run has other noise."
    return f"UNSAFE: injected from seed {options.seed}, so that anyone can subtract the noise. The epsilon is void."


def _limits(result: DemoResult) -> list[str]:
    lines = [_TWIN, _OPTIMISM, "- No hardware evidence was involved, and no message left this machine."]
    if result.attackers:
        lines.append(f"- {', '.join(result.attackers)} sent -10 times the honest update: a SIMULATED attacker.")
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(header), _line(["---"] * len(header)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
