"""The test of the test: one weight off by 1 % must fail the comparison."""

import numpy as np
import pytest

from equivalence import cases, compare, stored

pytestmark = pytest.mark.slow
MODES = ("evaluation", "training")
ERGL = {case.name: case for case in cases.ERGL_CASES}


def perturbed(variables: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """A copy with the largest value of one tensor made 1 % larger."""
    x = variables[name].copy()
    x.flat[np.abs(x).argmax()] *= 1.01
    return {**variables, name: x}


def forward(case, variables):
    """What the case computes in both modes."""
    found = case.ours(variables)
    return {name: x for name, x in found.items() if name.split("/")[0] in MODES}


# What no comparison of outputs can see, for what it multiplies is constant.
QUERY_KEY = {f"head/mel/nnm/_Projections_0/{name}/kernel" for name in ("query", "key")}


@pytest.mark.parametrize(
    ("name", "without_effect"),
    [
        ("ERGL frame, MEL, sigmoid", set()),
        # With one token an event, NNM's softmax is over one key: 1 whatever query and key are.
        ("ERGL clip, MEL, sigmoid", QUERY_KEY),
        # Without MEL the first layer's C multiplies zeros.
        ("ERGL frame, no MEL, sigmoid", {"head/gcn0/C/kernel"}),
    ],
)
def test_one_percent_of_any_weight_or_statistic_fails_the_comparison(name, without_effect):
    case = ERGL[name]
    variables, want = case.variables(), stored.load(name, MODES)
    before = forward(case, variables)
    assert not compare.beyond(before, want)
    unseen = set()
    for tensor in variables:
        after = forward(case, perturbed(variables, tensor))
        if tensor in without_effect:
            assert all(np.array_equal(after[key], x) for key, x in before.items())
        if not compare.beyond(after, want):
            unseen.add(tensor)
    assert unseen == without_effect


def test_the_comparison_sees_one_percent_in_any_gradient_step_or_statistic():
    """Of the comparison alone; that of our own gradients and steps is test_equivalence_stored."""
    case = ERGL["ERGL frame, MEL, sigmoid"]
    names = stored.load(case.name)
    for kind in ("gradients", "statistics", "adamw", "adamw statistics"):
        want = {name: x for name, x in names.items() if name.split("/")[0] == kind}
        for name, x in want.items():
            if x.any():
                assert compare.beyond(perturbed(want, name), want).keys() == {name}


def test_the_comparison_separates_optax_own_weight_decay_from_pytorchs():
    """1e-4 where PyTorch's is 1e-2: after five steps at 1e-3 weights are 5e-5 of themselves off."""
    for case in cases.ERGL_CASES:
        want = stored.load(case.name, ("adamw",))
        wrong = {name: x * (1 + 5 * 1e-3 * (1e-2 - 1e-4)) for name, x in want.items()}
        assert compare.beyond_rms(wrong, want).keys() == want.keys()
        assert not compare.beyond_rms(want, want)


def test_not_a_number_fails_the_comparison():
    want = {"evaluation/x": np.ones((2, 3), np.float32)}
    for wrong in (np.nan, np.inf):
        got = {"evaluation/x": np.full((2, 3), wrong, np.float32)}
        assert compare.beyond(got, want) == {"evaluation/x": np.inf}


def test_zeros_must_be_met_exactly_and_names_and_shapes_too():
    want = {"gradients/x": np.zeros(3, np.float32)}
    assert not compare.beyond(want, want)
    assert compare.beyond({"gradients/x": np.float32([0, 0, 1e-30])}, want)
    for got in ({}, {"gradients/y": want["gradients/x"]}, {"gradients/x": np.zeros(4)}):
        with pytest.raises(AssertionError):
            compare.beyond(got, want)
