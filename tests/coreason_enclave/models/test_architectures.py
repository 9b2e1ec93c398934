from __future__ import annotations

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator

from coreason_enclave.models import build, layout

CASES: dict[str, tuple[str, dict[str, int], tuple[int, ...], int]] = {
    "LogisticRegression": ("LogisticRegression", {"in_features": 5}, (5,), 1),
    "SimpleMLP": ("SimpleMLP", {"in_features": 5, "classes": 3}, (5,), 3),
    "SimpleMLP on images": ("SimpleMLP", {"in_features": 12, "classes": 3}, (3, 2, 2), 3),
    "SmallCNN": ("SmallCNN", {"in_channels": 1, "size": 28, "classes": 10}, (1, 28, 28), 10),
    "SmallCNN, odd size": ("SmallCNN", {"in_channels": 3, "size": 9, "classes": 2, "width": 4}, (3, 9, 9), 2),
    "SmallCNN, least size": ("SmallCNN", {"in_channels": 1, "size": 4, "classes": 2}, (1, 4, 4), 2),
}
WITH_CASES = pytest.mark.parametrize(("name", "args", "shape", "outputs"), CASES.values(), ids=CASES.keys())


@WITH_CASES
def test_outputs_are_one_row_of_logits_for_each_example(
    name: str, args: dict[str, int], shape: tuple[int, ...], outputs: int
) -> None:
    assert build(name, args).module(torch.zeros(4, *shape)).shape == (4, outputs)


@WITH_CASES
def test_opacus_finds_nothing_to_object_to(
    name: str, args: dict[str, int], shape: tuple[int, ...], outputs: int
) -> None:
    assert ModuleValidator.validate(build(name, args).module.train(), strict=False) == []


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # Opacus hooks a module whose input is data
@WITH_CASES
def test_per_example_gradients_equal_those_of_each_example_alone(
    name: str, args: dict[str, int], shape: tuple[int, ...], outputs: int
) -> None:
    torch.manual_seed(0)
    model = build(name, args)
    features, labels = torch.randn(3, *shape), torch.tensor([0, 1, 1])
    alone = []
    for row in range(3):
        model.module.zero_grad()
        model.criterion(model.module(features[row : row + 1]), labels[row : row + 1]).backward()
        alone.append([parameter.grad.clone() for parameter in model.module.parameters()])
    model.module.zero_grad()
    hooked = GradSampleModule(model.module)
    model.criterion(hooked(features), labels).backward()
    for index, parameter in enumerate(hooked.parameters()):
        for row in range(3):
            torch.testing.assert_close(parameter.grad_sample[row], alone[row][index], rtol=1e-4, atol=1e-5)


@WITH_CASES
def test_an_example_does_not_see_its_neighbours(
    name: str, args: dict[str, int], shape: tuple[int, ...], outputs: int
) -> None:
    torch.manual_seed(0)
    module, features = build(name, args).module, torch.randn(3, *shape)
    torch.testing.assert_close(module(features)[:1], module(features[:1]), rtol=1e-5, atol=1e-6)


def test_parameter_names_are_clean_and_stable() -> None:
    assert layout("LogisticRegression", {"in_features": 5}) == {"linear.weight": (1, 5), "linear.bias": (1,)}
    assert layout("SimpleMLP", {"in_features": 5}) == {
        "hidden.weight": (64, 5),
        "hidden.bias": (64,),
        "output.weight": (2, 64),
        "output.bias": (2,),
    }
    assert layout("SmallCNN", {"in_channels": 1, "size": 8, "classes": 10}) == {
        "conv1.weight": (16, 1, 3, 3),
        "conv1.bias": (16,),
        "conv2.weight": (32, 16, 3, 3),
        "conv2.bias": (32,),
        "output.weight": (10, 128),
        "output.bias": (10,),
    }


def test_hidden_activations_are_bounded() -> None:
    args = {"in_features": 2, "hidden": 3, "classes": 2}
    module = build("SimpleMLP", args).module
    bound = module.output.weight.abs().sum(dim=1) + module.output.bias.abs()
    assert torch.all(module(torch.full((1, 2), 1e30)).abs() <= bound * (1 + 1e-6))


def test_a_linear_layer_over_one_hot_inputs_is_an_embedding_for_every_single_row() -> None:
    """What docs/DATASETS.md says in place of an encoding as codes: equal values, and equal gradients row by row."""
    from torch.nn import functional

    places = torch.tensor([0, 3, 3, 1])
    one_hot = functional.one_hot(places, 4).to(torch.float32)
    linear, table = torch.nn.Linear(4, 3, bias=False), torch.nn.Embedding(4, 3)
    with torch.no_grad():
        table.weight.copy_(linear.weight.T)
    for row in range(len(places)):
        made, looked_up = linear(one_hot[row : row + 1]), table(places[row : row + 1])
        assert torch.equal(made, looked_up)
        (of_linear,) = torch.autograd.grad(made.tanh().sum(), linear.weight)
        (of_table,) = torch.autograd.grad(looked_up.tanh().sum(), table.weight)
        assert torch.equal(of_linear.T, of_table)
