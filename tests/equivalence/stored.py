"""The stored reference: made by PyTorch once, so that the suite runs without it."""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("reference.npz")
LOG_MELS = ("paper", "panns_16k", "panns_32k")  # front ends that are stored
SECONDS = 0.5  # of the stored log-mels


def make() -> dict[str, np.ndarray]:
    """Every reference tensor as `case/kind/tensor`; needs torch and torchlibrosa."""
    import torch

    from equivalence import cases, torch_side
    from ergl_jax.audio import FRONT_ENDS

    torch.set_num_threads(1)  # these tensors are too small to share
    found = {}
    for front_end in (FRONT_ENDS[name] for name in LOG_MELS):
        for name, signal in cases.waveforms(front_end.sample_rate, SECONDS).items():
            log_mel = torch_side.torchlibrosa_log_mel(front_end.name, signal)
            found[f"{front_end.name}/log-mel/{name}"] = log_mel
    for case in cases.CASES:
        variables = case.variables()
        tensors = torch_side.tensors(case, variables)
        if case in cases.ERGL_CASES:
            tensors |= torch_side.five_steps(case, variables)
        found |= {f"{case.name}/{name}": x for name, x in tensors.items()}
    return found


def load(case: str, kinds: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The stored tensors of a case by `kind/tensor`; of some kinds alone, where given."""
    with np.load(PATH) as file:
        names = [name for name in file.files if name.startswith(f"{case}/")]
        found = {name.removeprefix(f"{case}/"): name for name in names}
        return {
            short: file[name]
            for short, name in found.items()
            if not kinds or short.split("/")[0] in kinds
        }
