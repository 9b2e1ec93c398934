"""The example, small: few rounds and few attacks, and every number from the product's own doors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("sklearn", reason="the example's images come with scikit-learn")

from aegis.attacks.hostile.forged_evidence import Attack
from aegis.runtimes.in_process import initial_model, public_evaluator
from coreason_enclave.schemas import Aggregator
from examples.flower_sim import dataset, flowers_own, picture, run_demo, server


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    out = tmp_path_factory.mktemp("flower-sim")
    options = ["--rounds", "3", "--seed", "1", "--out", str(out), "--json"]
    attacks = [word for attack in ("none", "scaled", "nan") for word in ("--attack", attack)]
    result = CliRunner().invoke(run_demo.main, [*options, *attacks], catch_exceptions=False)
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown == json.loads((out / "results.json").read_text())
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    return shown


def _result(figures, aggregator: str, attack: str) -> dict:
    return next(r for r in figures["results"] if (r["aggregator"], r["attack"]) == (aggregator, attack))


def test_both_aggregators_learn_where_nobody_attacks(figures) -> None:
    for aggregator in ("krum", "trimmed_mean"):
        result = _result(figures, aggregator, "none")
        assert len(result["accuracy_by_round"]) == 3
        assert result["accuracy"] > 0.5
        assert not result["paused"]


def test_one_scaled_update_ruins_the_mean_and_neither_of_them(figures) -> None:
    assert _result(figures, "mean", "scaled")["accuracy"] < 0.3
    assert _result(figures, "krum", "scaled")["accuracy"] > 0.5
    assert _result(figures, "trimmed_mean", "scaled")["accuracy"] > 0.5


def test_an_update_that_is_not_a_number_is_refused_and_krum_pauses_for_want_of_a_fifth(figures) -> None:
    assert _result(figures, "trimmed_mean", "nan")["accuracy"] > 0.5
    assert "client-5: non_finite" in _result(figures, "krum", "nan")["paused"]
    assert _result(figures, "krum", "nan")["accuracy"] is None


def test_flower_combines_the_same_updates_to_the_same_model_where_all_of_them_are_finite(figures) -> None:
    for aggregator in ("krum", "trimmed_mean", "mean"):
        for attack in ("none", "scaled"):
            result = _result(figures, aggregator, attack)
            assert result["flower_accuracy"] == pytest.approx(result["accuracy"], abs=0.01)
            assert not result["flower_problem"]


def test_what_flower_makes_of_a_nan_is_reported(figures) -> None:
    assert "not finite from round 1" in _result(figures, "mean", "nan")["flower_problem"]
    assert _result(figures, "krum", "nan")["flower_given_updates_of"] == "mean"


def test_every_client_spends_at_most_the_epsilon_that_the_title_names(figures) -> None:
    spent = [result["epsilon"] for result in figures["results"] if result["epsilon"] is not None]
    assert spent
    assert all(0 < epsilon <= figures["target_epsilon"] for epsilon in spent)


def test_the_table_names_every_attack_and_says_what_is_simulated(figures) -> None:
    text = picture.table(figures)
    assert "SIMULATED" in text
    assert "UNSAFE" in text
    assert all(attack in text for attack in ("none", "scaled", "nan"))
    assert "paused: krum under nan" in text


@pytest.mark.parametrize("attack", [Attack.SIGN_FLIP, Attack.LABEL_FLIP, Attack.ALIE, Attack.IPM])
def test_every_other_attack_reaches_the_aggregator(tmp_path, attack) -> None:
    job = server.digits_job(Aggregator.TRIMMED_MEAN, 5, 1)
    trained = server.train(tmp_path, dataset.deal(5), job, attack=attack, unsafe_seed=1)
    assert len(trained.rounds[0].admitted) == 5
    sent = trained.sent[1]
    own = sent["client-5"]["output.weight"]
    others = np.stack([sent[f"client-{n}"]["output.weight"] for n in range(1, 5)]).astype(np.float64)
    if attack is Attack.IPM:
        np.testing.assert_allclose(own, -0.5 * others.mean(axis=0), rtol=1e-5, atol=1e-7)
    if attack is Attack.ALIE:
        np.testing.assert_allclose(own, others.mean(axis=0) - 1.5 * others.std(axis=0), rtol=1e-5, atol=1e-6)


def test_no_image_is_at_two_clients_or_in_the_public_set_and_none_is_lost() -> None:
    digits = dataset.deal(5)
    rows = [row.tobytes() for share in digits.shares for row in share.features]
    public = [((row + 1) * 8).astype(np.float32).tobytes() for row in digits.evaluation.features]
    assert len(rows) + len(public) == 1797
    assert {len(share.labels) for share in digits.shares} <= {269, 270}
    twice = len(rows) + len(public) - len({*rows, *public})
    assert twice == 0


def test_a_label_flip_turns_every_label_around_and_leaves_the_images() -> None:
    share = dataset.deal(3).shares[0]
    flipped = dataset.turned_around(share)
    assert (flipped.labels + share.labels == 9).all()
    assert flipped.features is share.features


def test_with_four_clients_flowers_trimmed_mean_trims_nobody_and_the_product_does() -> None:
    assert server.hostile_tolerated(Aggregator.TRIMMED_MEAN, 4) == 1
    assert server.hostile_tolerated(Aggregator.KRUM, 4) == 0
    digits, job = dataset.deal(4), server.digits_job(Aggregator.TRIMMED_MEAN, 4, 1)
    initial = initial_model(job)
    zero = {name: np.zeros_like(array) for name, array in initial.items()}
    poisoned = {name: np.full_like(array, 1e30) for name, array in initial.items()}
    poisoned["hidden.bias"][0] = np.nan
    replayed = flowers_own.replay(
        flowers_own.flowers_strategy(Aggregator.TRIMMED_MEAN, 4),
        initial,
        {1: {"a": zero, "b": zero, "c": zero, "d": poisoned}},
        public_evaluator(job, digits.evaluation.features, digits.evaluation.labels),
    )
    assert "not finite from round 1" in replayed.problem


def test_what_flower_raises_is_a_result_and_not_the_end() -> None:
    model = {"w": np.zeros(2, np.float32)}
    wrong = {"w": np.zeros(3, np.float32)}
    replayed = flowers_own.replay(
        flowers_own.flowers_strategy(Aggregator.KRUM, 5), model, {1: {"a": model, "b": wrong}}, lambda _: {}
    )
    assert replayed.accuracy == ()
    assert replayed.problem.endswith("in round 1")


@pytest.mark.parametrize("words", [["--clients", "6"], ["--attack", "unheard_of"], ["--rounds", "0"]])
def test_options_that_make_no_sense_are_refused_before_anything_is_trained(tmp_path, words) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(run_demo.main, ["--out", str(out), *words])
    assert result.exit_code == 2
    assert not out.exists()
