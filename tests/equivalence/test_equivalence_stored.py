"""Small models against the stored reference; no PyTorch is needed."""

import numpy as np
import pytest

from equivalence import cases, compare, stored
from ergl_jax.audio import FRONT_ENDS, log_mel

DECIBELS = 1e-4


def ids(case):
    return case.name


@pytest.mark.parametrize(
    "front_end", [FRONT_ENDS[name] for name in stored.LOG_MELS], ids=stored.LOG_MELS
)
def test_log_mel(front_end):
    signals = cases.waveforms(front_end.sample_rate, stored.SECONDS)
    got = {f"log-mel/{k}": log_mel(x[None], front_end)[0] for k, x in signals.items()}
    want = stored.load(front_end.name)
    compare.assert_equal(f"log-mel {front_end.name}, dB", got, want, "stored")
    assert max(np.abs(got[name] - want[name]).max() for name in want) <= DECIBELS


@pytest.mark.parametrize("case", cases.CASES, ids=ids)
def test_outputs_gradients_and_statistics(case):
    kinds = ("evaluation", "training", "gradients", "statistics")
    compare.assert_equal(case.name, case.ours(), stored.load(case.name, kinds), "stored")


@pytest.mark.parametrize(
    "case",
    [
        cases.ERGL_CASES[0],
        *(pytest.param(case, marks=pytest.mark.slow) for case in cases.ERGL_CASES[1:]),
    ],
    ids=ids,
)
def test_five_steps_of_adamw(case):
    kinds = ("adamw", "adamw statistics", "adamw loss")
    want = stored.load(case.name, kinds)
    compare.assert_equal(case.name, cases.five_steps(case), want, "stored")
    # The steps went somewhere: weight decay alone moves a weight by 5e-5 of itself.
    variables = case.variables()
    adamw = {name: x for name, x in want.items() if name.startswith("adamw/")}
    before = {name: variables[name.removeprefix("adamw/")] for name in adamw}
    assert compare.beyond_rms(before, adamw).keys() == adamw.keys()


def test_the_reference_covers_every_parameter_in_both_modes():
    for case in cases.ERGL_CASES:
        names = set(stored.load(case.name))
        parameters = {name for name in case.variables() if not name.endswith(("mean", "var"))}
        assert {f"{kind}/{name}" for kind in ("gradients", "adamw") for name in parameters} <= names
        for mode in ("evaluation", "training"):
            assert {f"{mode}/{name}" for name in ("loss", "edges_in", "encoder", "gates")} <= names
