"""``summary.md`` of a run: utility, price, limits; and the closing lines of ``aegis run``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from aegis.studies.held_out import Interval
from aegis.studies.pictures import names_of
from aegis.studies.results import PLOTS, StudyResult
from aegis.studies.site_accounts import SiteAccount, why_they_differ
from coreason_enclave.ledger import DEFINITIONS

_SEEDED = (
    "UNSAFE: sampling and noise were injected from a seed, so that anyone who knows it can subtract the noise: every "
    "epsilon of this run is void."
)
_SIMULATED = (
    "> **SIMULATED**: attestation is simulated (development profile) and all sites run on one machine. The privacy "
    "mechanism, ledgers, signatures, admission and aggregation are real."
)


def headline(result: StudyResult) -> list[str]:
    """Return the closing lines: utility, spread, baseline, other models, attackers, price."""
    lines = [_utility(result), *_spread(result), _baseline(result), *_references(result), *price(result)]
    if result.attackers:
        lines.append(f"A SIMULATED attacker controlled {', '.join(result.attackers)}, and sent -10 times the update.")
    return [*lines, *([_SEEDED] if result.is_seeded else [])]


def _spread(result: StudyResult) -> Iterator[str]:
    measure = result.main_measure
    if measure is None or not result.repeats:
        return
    values = result.of_runs(measure)
    yield f"Over {len(values)} runs with new keys: {measure} {mean(values):.4f} ± {stdev(values):.4f}."


def _references(result: StudyResult) -> Iterator[str]:
    measure = result.main_measure or ""
    for name, found in result.references.items():
        if measure in found:
            yield f"For comparison, {name}: {measure} {found[measure].text()}."


def _utility(result: StudyResult) -> str:
    measure = result.main_measure
    if measure is None:
        return "No held-out set: the study did not measure utility."
    others = ", ".join(f"{name} {each.value:.4f}" for name, each in result.measures.items() if name != measure)
    return f"{measure} {_with_interval(result.measures[measure])} on the held-out rows{'; ' if others else ''}{others}."


def _with_interval(each: Interval) -> str:
    return f"{each.value:.4f}" + ("" if each.low is None else f" (95 % interval {each.low:.4f} to {each.high:.4f})")


def _baseline(result: StudyResult) -> str:
    measure = result.main_measure
    if result.no_twin is not None:
        return f"No baseline without privacy: {result.no_twin}."
    value = None if measure is None else result.without_privacy(measure)
    return (
        "Without privacy: not measured." if value is None else f"Without privacy, the same job: {measure} {value:.4f}."
    )


def price(result: StudyResult) -> list[str]:
    """Return the price in words: spent, reserved and left, and why they differ if they do."""
    if not result.is_private:
        return ["Price: NON-PRIVATE, no epsilon holds."]
    privacy = result.job.privacy
    spent, reserved, left = (
        _largest([each.spent for each in result.accounts]),
        _largest([each.reserved for each in result.accounts]),
        [each for each in result.accounts if each.left is not None],
    )
    least = min(left, key=lambda each: each.left or 0.0) if left else None
    words = [f"epsilon {spent} spent", f"{reserved} reserved"] if reserved else [f"epsilon {spent} spent"]
    words += [f"{_left(least)} left for further jobs"] if least is not None else []
    lines = [
        (
            f"Price at each site, for one {privacy.unit}: {', '.join(words)} (at delta {privacy.delta:g}; the largest "
            "of all sites, the least that is left)."
        )
    ]
    sentence = why_they_differ(result.accounts)
    return [*lines, *([sentence] if sentence else []), *_federation(result)]


def _federation(result: StudyResult) -> Iterator[str]:
    whole = result.outcome["federation_epsilon"]
    if whole["epsilon"] is None:
        return
    claim = whole["claimed_disjoint_by"]
    basis = (
        "the sites' guarantees composed, because one person may have data at several sites"
        if claim is None
        else f"the largest of the sites' guarantees, if no person has data at two sites; CLAIMED: {claim}"
    )
    yield f"Over all sites: epsilon {whole['epsilon']:.3f} at delta {whole['delta']:g}: {basis}."


def _largest(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.3f}" if known else ""


def _left(account: SiteAccount | None) -> str:
    if account is None or account.left is None or account.cap is None:
        return "known to the site alone"
    return f"{account.left:.1%} of the cap of epsilon {account.cap[0]:g}"


def summary(result: StudyResult) -> str:
    """Return the summary in Markdown."""
    last = result.history[-1]
    lines = [
        f"# {result.name}",
        "",
        *([_SIMULATED, ""] if result.is_simulated else []),
        *(f"- {line}" for line in headline(result)),
        "",
        *(item for line in result.notes for item in (line, "")),
        *(f"![{name.removesuffix('.png')}]({PLOTS}/{name})" for name in names_of(result)),
        "",
        "## Utility on the held-out rows",
        "",
        *utility_table(result),
        "",
        "## Privacy, site by site",
        "",
        *privacy_statement(result),
        "",
        "## Rounds",
        "",
        (
            f"{len(result.history)} rounds; `metrics.csv` has a line for each. In the last round the model used "
            f"updates of {', '.join(last.used) or 'no site'}."
        ),
        *_troubles(result),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in limits(result)),
        "",
        "## How to check the run",
        "",
        (
            "`aegis verify` on this folder recomputes epsilon from each site's ledger, compares model, log, ledgers, "
            "and every file, this page included, with the signed manifest. `model_card.md` describes the model."
        ),
        "",
    ]
    return "\n".join(lines)


def utility_table(result: StudyResult) -> list[str]:
    """Return every measure with its interval and the baseline's value, in Markdown."""
    if not result.measures:
        return ["The study has no held-out set."]
    persons = "rows, each a person of its own" if result.predictions is None else result.predictions.resampled
    rows = [
        (name, each.text(), "" if (without := result.without_privacy(name)) is None else f"{without:.4f}")
        for name, each in result.measures.items()
    ]
    header = ("measure", "released model (95 % interval)", "same job without privacy")
    lines = [*table(header, rows), "", f"Intervals: percentiles of the bootstrap over held-out {persons}."]
    return [*lines, *_other_models(result), *_repetitions(result)]


def _other_models(result: StudyResult) -> Iterator[str]:
    if not result.references:
        return
    rows = [
        (name, *(found[measure].text() if measure in found else "" for measure in result.measures))
        for name, found in result.references.items()
    ]
    yield from ("", *table(("other models", *result.measures), rows))


def _repetitions(result: StudyResult) -> Iterator[str]:
    """Yield a table of the measures that every round has, for the run and its repetitions."""
    if not result.repeats:
        return
    known = [name for name in result.measures if name in result.history[-1].metrics]
    columns = [result.of_runs(name) for name in known]
    names = ["the run", *(f"repetition {number}" for number in range(1, len(result.repeats) + 1))]
    rows = [(name, *(f"{value:.4f}" for value in values)) for name, *values in zip(names, *columns, strict=True)]
    yield from ("", *table(("the same job on new SIMULATED sites", *known), rows))


def privacy_statement(result: StudyResult) -> list[str]:
    """Return the price of each site, its definitions and the guarantee, in Markdown."""
    if not result.is_private:
        return ["**NON-PRIVATE**: this job gives no guarantee to anyone in its rows."]
    privacy, last = result.job.privacy, result.history[-1]
    rows = [
        (
            each.site,
            str(last.provenance.get(each.site, "refused")),
            _steps(each),
            "none" if each.spent is None else f"{each.spent:.4f}",
            "known to the site" if each.reserved is None else f"{each.reserved:.4f}",
            _left(each),
        )
        for each in result.accounts
    ]
    sentence = why_they_differ(result.accounts)
    client = result.outcome.get("client_privacy")
    return [
        *table(("site", "attestation", "steps", "spent", "reserved", "left"), rows),
        "",
        *(f"- {line}" for line in DEFINITIONS),
        *([f"- {sentence}"] if sentence else []),
        (
            f"- Mechanism: DP-SGD, clipping norm {privacy.max_grad_norm:g} per {privacy.unit}, noise multiplier "
            f"{privacy.noise_multiplier:.4f}, Poisson sample rate {privacy.sample_rate:g}, at most "
            f"{result.job.total_steps} steps, epsilon at most {privacy.target_epsilon:g} at delta {privacy.delta:g}."
        ),
        f"- Neighbours differ by one {privacy.unit}, added or removed. Randomness: {result.config['randomness']}.",
        *(f"- {line}" for line in _federation(result)),
        *(
            [f"- Client-level privacy of a whole site: epsilon {client['epsilon']:.4f} at delta {client['delta']:g}."]
            if client
            else []
        ),
    ]


def _steps(account: SiteAccount) -> str:
    if account.steps_reserved is None:
        return str(account.steps_spent)
    return f"{account.steps_spent} of {account.steps_reserved} reserved"


def _troubles(result: StudyResult) -> Iterator[str]:
    for record in result.history:
        for site, reason in sorted(record.refused.items()):
            yield f"- Round {record.round_number}: {site} refused ({reason})."
        for site in sorted(set(record.admitted) - set(record.used)):
            yield f"- Round {record.round_number}: {site}'s update was set aside."  # noqa: S608 - a page, not a query


def limits(result: StudyResult) -> Iterator[str]:
    """Yield what a reader must not conclude from the run."""
    if result.twin:
        yield (
            "The baseline used the same public rows without privacy: the price above is that of the private job alone. "
            "The sites' ledgers record the baseline as well."
        )
    if result.repeats:
        yield "The repetitions used the same public rows under budgets of their own; their price is not in the above."
    if result.is_simulated:
        yield "No hardware evidence was involved, and no message left this machine."
        yield "The bounds and categories of a simulation may come from its rows; real sites need publicly known ones."
    if result.measures:
        yield (
            "Intervals cover the choice of held-out persons alone, not the noise and sampling of training: another run "
            "of the same job gives another model."
        )
        yield "Choosing among several runs by these held-out rows makes their measures optimistic."
    if result.job.num_byzantine == 0:
        yield "The aggregator withstands no hostile site."
    yield from result.further_limits


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown."""
    return [_line(header), _line(["---"] * len(header)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
