"""Options of ``aegis demo`` that make no sense are refused before anything is founded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

WRONG = {
    "an epsilon of -1": (["--epsilon", "-1"], "target_epsilon"),
    "an epsilon of NaN": (["--epsilon", "nan"], "target_epsilon"),
    "an epsilon in words": (["--epsilon", "low"], "'low' is not a valid float"),
    "one site alone": (["--sites", "1"], "1 is not in the range"),
    "more sites than the study had": (["--sites", "7"], "7 is not in the range"),
    "no rounds": (["--rounds", "0"], "0 is not in the range"),
    "Krum over fewer sites than its guarantee needs": (["--aggregator", "krum", "--sites", "4"], "needs 5 sites"),
    "nobody but attackers": (["--attackers", "4", "--sites", "4", "--aggregator", "mean"], "--attackers must be below"),
    "a runtime that the demonstration does not have": (["--runtime", "nvflare"], "'nvflare' is not one of"),
    "an aggregator that nobody knows": (["--aggregator", "average"], "'average' is not one of"),
    "a unit that nobody knows": (["--unit", "family"], "'family' is not one of"),
    "a file where the runs should go": (["--runs", __file__], "is a file"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_gets_one_clear_line_and_founds_nothing(
    aegis: Callable[..., Result], tmp_path: Path, options: list[str], said: str
) -> None:
    runs = [] if "--runs" in options else ["--runs", tmp_path / "runs"]

    result = aegis("demo", *runs, *options)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert not (tmp_path / "runs").exists()
