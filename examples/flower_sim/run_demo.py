"""Krum and trimmed mean against six attacks, beside Flower's own on the same updates.

    python -m examples.flower_sim.run_demo
    python -m examples.flower_sim.run_demo --attack ipm --attack nan --rounds 5 --json
    python -m examples.flower_sim.run_demo --clients 4 --aggregator trimmed_mean

Everything is the product's own: sites with ledgers and keys, DP-SGD, sealed updates, admission. Only attestation, the
attackers, and that all clients share one machine, are simulated.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from aegis.attacks.hostile import Attack
from aegis.runtimes import initial_model, public_evaluator
from coreason_enclave.schemas import Aggregator
from examples.flower_sim.client import DELTA, names_of
from examples.flower_sim.dataset import Digits, deal
from examples.flower_sim.flowers_own import Replayed, flowers_strategy, replay
from examples.flower_sim.picture import draw, table
from examples.flower_sim.server import EPSILON, Trained, digits_job, train

__all__ = ["Cell", "main", "study"]

NO_ATTACK = "none"
BOTH = "both"


@dataclass(frozen=True)
class Cell:
    """One aggregator under one attack: the product's run, and Flower's aggregator on the updates that were sent.

    ``borrowed`` where that run stopped early, so that Flower's was given the updates of the mean's run.
    """

    aggregator: Aggregator
    attack: str
    ours: Trained
    flowers: Replayed
    borrowed: bool
    hostile: str

    def to_dict(self) -> dict[str, object]:
        """The figures, for scripts."""
        last = self.ours.rounds[-1] if self.ours.rounds else None
        return {
            "aggregator": self.aggregator.value,
            "attack": self.attack,
            "accuracy": self.ours.accuracy,
            "accuracy_by_round": [record.metrics["accuracy"] for record in self.ours.rounds],
            "epsilon": None if last is None else max(value or 0.0 for value in last.epsilon.values()),
            "rounds_that_used_the_last_client": sum(self.hostile in record.used for record in self.ours.rounds),
            "paused": self.ours.paused,
            "flower_accuracy": self.flowers.accuracy[-1] if self.flowers.accuracy else None,
            "flower_problem": self.flowers.problem,
            "flower_given_updates_of": Aggregator.MEAN.value if self.borrowed else self.aggregator.value,
        }


@click.command()
@click.option("--clients", type=click.IntRange(3, 5), default=5, show_default=True, help="The last one is hostile.")
@click.option(
    "--attack",
    "attacks",
    type=click.Choice([NO_ATTACK, *(attack.value for attack in Attack)]),
    multiple=True,
    help="What the hostile client does; may be given several times.  [default: all of them]",
)
@click.option(
    "--aggregator",
    type=click.Choice([*(rule.value for rule in Aggregator), BOTH]),
    default=BOTH,
    show_default=True,
    help="Shown beside the plain mean, which has no defence; both: Krum and trimmed mean.",
)
@click.option("--rounds", type=click.IntRange(1, 100), default=8, show_default=True, help="Rounds of 5 local steps.")
@click.option("--seed", type=int, default=None, help="UNSAFE: inject all noise from this number; reproducible figures.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/flower_sim"), show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on standard output.")
def main(
    clients: int, attacks: tuple[str, ...], aggregator: str, rounds: int, seed: int | None, out: Path, as_json: bool
) -> None:
    """Train a small network on real images over 3 to 5 clients, privately, while the last one attacks."""
    chosen = attacks or (NO_ATTACK, *(attack.value for attack in Attack))
    cells = study(clients, _rules(aggregator), list(dict.fromkeys(chosen)), rounds, seed)
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "clients": clients,
        "rounds": rounds,
        "target_epsilon": EPSILON,
        "delta": DELTA,
        "unit": "record",
        "attestation": "simulated",
        "unsafe_seed": seed,
        "results": [cell.to_dict() for cell in cells],
    }
    (out / "results.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw(out / "accuracy.png", figures)
    click.echo(json.dumps(figures) if as_json else table(figures))
    click.echo(f"wrote {out / 'results.json'} and {out / 'accuracy.png'}", err=True)


def _rules(aggregator: str) -> list[Aggregator]:
    chosen = [Aggregator.KRUM, Aggregator.TRIMMED_MEAN] if aggregator == BOTH else [Aggregator(aggregator)]
    return [*chosen, *([] if Aggregator.MEAN in chosen else [Aggregator.MEAN])]


def study(
    clients: int, rules: Sequence[Aggregator], attacks: Sequence[str], rounds: int, seed: int | None = None
) -> list[Cell]:
    """Every aggregator under every attack, each on newly created clients; the mean has to be among ``rules``."""
    digits = deal(clients)
    cells: list[Cell] = []
    for attack in attacks:
        runs = {rule: _run(digits, rule, attack, rounds, seed) for rule in rules}
        cells += [_compared(digits, rule, attack, runs) for rule in rules]
    return cells


def _run(digits: Digits, rule: Aggregator, attack: str, rounds: int, seed: int | None) -> Trained:
    job = digits_job(rule, len(digits.shares), rounds)
    with tempfile.TemporaryDirectory(prefix="flower-sim-") as folder:
        trained = train(
            Path(folder), digits, job, attack=None if attack == NO_ATTACK else Attack(attack), unsafe_seed=seed
        )
    ended = f"accuracy {trained.accuracy:.3f}" if trained.accuracy is not None else "no model"
    click.echo(
        f"{rule.value} under {attack}: {ended}{', PAUSED: ' if trained.paused else ''}{trained.paused}", err=True
    )
    return trained


def _compared(digits: Digits, rule: Aggregator, attack: str, runs: dict[Aggregator, Trained]) -> Cell:
    ours, mean = runs[rule], runs[Aggregator.MEAN]
    borrowed = len(ours.sent) < len(mean.sent)
    flowers = replay(
        flowers_strategy(rule, len(digits.shares)),
        initial_model(ours.job),
        (mean if borrowed else ours).sent,
        public_evaluator(ours.job, digits.evaluation.features, digits.evaluation.labels),
    )
    return Cell(rule, attack, ours, flowers, borrowed, names_of(len(digits.shares))[-1])


if __name__ == "__main__":
    main()
