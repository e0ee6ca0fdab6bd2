"""Plans: the search for the largest batch, shapes without data, and mistakes in one line."""

import json
import types

import jax
import pytest

from ergl_jax.compiling import chips, plan
from ergl_jax.compiling.programs import OutOfMemory, Programs, Sizes
from ergl_jax.errors import InputError

CHIP = chips.CHIPS["v5e"]


class Memory:
    """Programs of known memory; counts compilations."""

    def __init__(self, config, devices, fixed, per_clip, refuses):
        self.config, self.devices, self.count = config, range(devices), 0
        self.need = lambda share: fixed + per_clip * share
        self.refuses = refuses  # as the TPU's compiler: an error instead of a figure

    def step(self, batch_size):
        self.count += 1
        need = self.need(batch_size // len(self.devices))
        if self.refuses and need > CHIP.usable_bytes:
            raise OutOfMemory("Used 17.50G of 15.75G hbm")
        return types.SimpleNamespace(memory=lambda: {"peak": need})


@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("per_clip", [7e6, 71e6, 1.3e9])
def test_the_largest_batch(config, devices, per_clip, refuses):
    """In few compilations, to 8 clips a device; per clip 7 MB to 1.3 GB beside 1 GB of weights."""
    programs = Memory(config, devices, 1e9, per_clip, refuses)
    peak = programs.need(config.train.batch_size // devices)
    found = plan.find_largest_batch(
        programs, CHIP.usable_bytes, None if refuses and peak > CHIP.usable_bytes else peak
    )
    share = found // devices
    assert programs.need(share) <= CHIP.usable_bytes < programs.need(share + plan.GRANULE)
    assert found % devices == 0 and programs.count <= 6


def test_no_batch_fits(config):
    programs = Memory(config, 1, 20e9, 1e6, True)
    assert plan.find_largest_batch(programs, CHIP.usable_bytes, None) is None


def test_sizes_of_tut2018_without_its_recordings(config, tmp_path):
    absent = config.replace(**{"data.source": "tut2018", "data.root": str(tmp_path)})
    assert plan.sizes(absent, None) == (10, absent.data.num_events, 6122)
    assert plan.sizes(absent, 80).clips == 80


@pytest.mark.parametrize(
    "topology, words",
    [
        ("v9:2x2", "no chip 'v9'; choose one of v4, v5e"),
        ("v5e:2by2", "write it as v5e:2x2"),
        ("v5e:0x0", "write it as v5e:2x2"),
        ("v5e:2x2x2x2", "write it as v5e:2x2"),
        ("v5e:", "write it as v5e:2x2"),
        ("h100:2x4", "write it as h100:8"),
        ("h100:none", "write it as h100:8"),
    ],
)
def test_a_wrong_topology(topology, words):
    with pytest.raises(InputError, match=words):
        chips.open_topology(topology)


@pytest.mark.parametrize("share", ["abc", "nan", "3", "0"])
def test_a_wrong_share_of_memory(share, monkeypatch):
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", share)
    with pytest.raises(InputError, match=f"XLA_CLIENT_MEM_FRACTION={share}: "):
        chips.open_topology("h100")


def test_a_batch_too_small_for_the_chips(config, tmp_path, monkeypatch):
    monkeypatch.setattr(chips, "open_topology", lambda name: (CHIP, list(range(256))))
    with pytest.raises(InputError, match="train.batch_size=16 .* the 256 devices of v5e:16x16"):
        plan.run(config, "v5e:16x16", tmp_path, clips=None, largest_batch=False)


def test_a_crop_that_leaves_too_few_frames(config):
    cropped = config.replace(**{"augment.crop": 0.999})
    programs = Programs(cropped, Sizes(scenes=10, events=4, clips=64), jax.devices())
    with pytest.raises(InputError, match=r"augment\.crop=0\.999 leaves 1 of \d+ frames"):
        programs.step(16)


def test_an_absent_compiler_is_named(monkeypatch):
    monkeypatch.setattr(chips, "has_compiler", lambda platform: False)
    for topology, extra in (("v5e:2x2", "tpu-compile"), ("h100", "cuda-compile")):
        with pytest.raises(InputError, match=extra):
            chips.open_topology(topology)


@pytest.mark.slow
@pytest.mark.skipif(not chips.has_compiler("tpu"), reason="needs libtpu")
def test_a_plan_is_written(config, tmp_path):
    small = config.replace(**{"model.name": "cnn"})
    text = plan.run(small, "v5e:1x1", tmp_path / "new", clips=64, largest_batch=False)
    found = json.loads((tmp_path / "new/compile.json").read_text())
    assert found["step"]["fits"] and found["epoch"]["fits"] and found["devices"] == 1
    assert found["step"]["bound_by"] in text
    bound = found["step"]["seconds_at_least"]["memory"]
    assert bound == pytest.approx(found["step"]["bytes_accessed"] / 819e9)
