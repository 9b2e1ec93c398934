"""Words for refused documents: places that a reader finds, near names, and no word of pydantic's own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from coreason_enclave.schemas import FederationJob
from coreason_enclave.system import did_you_mean, explain


class Dial(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    missing: Literal["refuse"] | Annotated[float, Strict(), Field(ge=0, le=1)] = "refuse"
    level: Annotated[int, Strict(), Field(ge=1, le=5)] = 1


class Panel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=3)]
    dials: Annotated[tuple[Dial, ...], Field(max_length=2)] = ()
    named: dict[str, Dial] = Field(default_factory=dict)
    on: Annotated[bool, Strict()] = True


WORDS: dict[str, tuple[dict[str, Any], str]] = {
    "a field left out": ({}, "name is required"),
    "a field misspelt": ({"name": "a", "nmae": "b"}, "nmae is not a known field, did you mean 'name'?"),
    "a field like no other": ({"name": "a", "zzz": 1}, "zzz is not a known field"),
    "a field misspelt deep inside": (
        {"name": "a", "dials": [{}, {"lvel": 1}]},
        "dials.1.lvel is not a known field, did you mean 'level'?",
    ),
    "a field misspelt below a free name": (
        {"name": "a", "named": {"x": {"mising": 1}}},
        "named.x.mising is not a known field, did you mean 'missing'?",
    ),
    "no member of a union": (
        {"name": "a", "dials": [{"missing": "mean"}]},
        "dials.0.missing must be 'refuse' or a number",
    ),
    "text for a whole number": ({"name": "a", "dials": [{"level": "1"}]}, "dials.0.level must be a whole number"),
    "a number beyond its limit": ({"name": "a", "dials": [{"level": 9}]}, "dials.0.level must be at most 5"),
    "text for yes or no": ({"name": "a", "on": "yes"}, "on must be true or false"),
    "text that is too long": ({"name": "abcd"}, "name must have at most 3 characters"),
    "a number for text": ({"name": 5}, "name must be text"),
    "a list that is too long": ({"name": "a", "dials": [{}, {}, {}]}, "dials must have at most 2 entries"),
    "a number for a table": ({"name": "a", "dials": [5]}, "dials.0 must be a table"),
    "two problems": ({"nmae": "a"}, "name is required; nmae is not a known field, did you mean 'name'?"),
}


def _explained(model: type[BaseModel], document: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(document)
    return explain(refused.value)


@pytest.mark.parametrize(("document", "words"), WORDS.values(), ids=WORDS.keys())
def test_a_refusal_names_place_and_remedy(document: dict[str, Any], words: str) -> None:
    text = _explained(Panel, document)
    assert text.startswith(words)
    assert [jargon for jargon in ("literal[", "constrained", "Input should", "valid ") if jargon in text] == []


def test_a_place_in_a_list_may_be_given_a_name() -> None:
    with pytest.raises(ValidationError) as refused:
        Panel.model_validate({"name": "a", "dials": [{}, {"lvel": 1}]})
    text = explain(refused.value, places=lambda name, index: f"{name}[{index + 1}]")
    assert text == "dials[2].lvel is not a known field, did you mean 'level'?"


def test_every_document_profits() -> None:
    text = _explained(FederationJob, {"job_id": "a", "learning_rat": 1.0, "privacy": {"mechanism": "DPSGD"}})
    assert "learning_rat is not a known field, did you mean 'learning_rate'?" in text
    assert "privacy.mechanism must be 'DP_SGD' or 'NON_PRIVATE'" in text


def test_a_near_name_is_offered_and_a_far_one_is_not() -> None:
    assert did_you_mean("Encodng", ["encoding", "header"]) == ", did you mean 'encoding'?"
    assert did_you_mean("dp_sdg", ["DP_SGD", "NON_PRIVATE"]) == ", did you mean 'DP_SGD'?"
    assert did_you_mean("x", ["encoding", "header"]) == ""
