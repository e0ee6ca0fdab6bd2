"""The reference side of every case: reference.py run by PyTorch in float64.

Float64, so that an error in the table is ours alone; the full-size comparisons use float32.
"""

import numpy as np
import torch
import torchlibrosa.stft as torchlibrosa

from equivalence import reference
from equivalence.cases import Case, batches


def tensors(case: Case, variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `Case.ours` returns, by PyTorch."""
    found = {}
    with torch.no_grad():
        found["evaluation"], _ = outputs(case, scope(variables), case.inputs, False, case.targets)
    p = scope(variables)
    returned, p = outputs(case, p, case.inputs, True, case.targets)
    case.objective(returned, torch.from_numpy).backward()
    if case.modes:
        found |= {"training": returned, "statistics": biased_statistics(p, variables, 1)}
    found["gradients"] = {
        # None: nothing that the loss sees depends on it.
        name: torch.zeros_like(x) if x.grad is None else x.grad
        for name, x in p.tensors.items()
        if x.requires_grad
    }
    return flat(found)


def five_steps(case: Case, variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `cases.five_steps` returns, by torch.optim.AdamW with its defaults."""
    p = scope(variables)
    parameters = {name: x for name, x in p.tensors.items() if x.requires_grad}
    adamw, losses = torch.optim.AdamW(parameters.values()), []
    scenes = case.targets["scene"].shape[1]
    batch_list = batches()
    for batch in batch_list:
        targets = {"scene": np.eye(scenes)[batch["scene"]], "events": batch["events"]}
        returned, p = outputs(case, p, (batch["log_mel"],), True, targets)
        for x in parameters.values():
            x.grad = torch.zeros_like(x)  # not None: as in JAX, weight decay acts on all
        returned["loss"].backward()
        adamw.step()
        losses.append(returned["loss"])
    statistics = biased_statistics(p, variables, len(batch_list))
    return flat(
        {"adamw": parameters, "adamw statistics": statistics}
        | {"adamw loss": {"loss": torch.stack(losses)}}
    )


def scope(variables: dict[str, np.ndarray], dtype=torch.float64) -> reference.Scope:
    """Tensors of the variables; weights ask for gradients, statistics don't."""
    return reference.Scope(
        {
            name: torch.tensor(x, dtype=dtype, requires_grad=not name.endswith(("mean", "var")))
            for name, x in variables.items()
        }
    )


def outputs(case, p, inputs, train, targets):
    """Everything the reference computes by name, losses included; and the scope, for its counts."""
    dtype = next(iter(p.tensors.values())).dtype
    inputs = [torch.tensor(np.asarray(x), dtype=dtype) for x in inputs]
    mode = {"train": train} if case.modes else {}
    returned = getattr(reference, case.reference)(p, *inputs, **mode, **case.options)
    if not isinstance(returned, dict):
        returned = returned if isinstance(returned, tuple) else (returned,)
        returned = dict(zip(case.outputs, returned, strict=True))
    if targets is not None:
        targets = {name: torch.tensor(x, dtype=dtype) for name, x in targets.items()}
        returned |= reference.losses(returned, **targets)
    return returned, p


def biased_statistics(p: reference.Scope, variables, steps: int) -> dict[str, torch.Tensor]:
    """PyTorch's running statistics as Flax keeps them.

    PyTorch records the unbiased variance of N values, N / (N - 1) times Flax's. Both forget by 0.9
    a step, so after t steps what both added to 0.9^t times the start differs by that factor.
    """
    found = {}
    for prefix, count in p.counts.items():
        found[f"{prefix}mean"] = p.tensors[f"{prefix}mean"]
        start = 0.9**steps * torch.from_numpy(variables[f"{prefix}var"]).to(torch.float64)
        added = p.tensors[f"{prefix}var"] - start
        found[f"{prefix}var"] = start + added * (count - 1) / count
    return found


def flat(groups: dict[str, dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    return {
        f"{group}/{name}": np.float32(x.detach().numpy())
        for group, found in groups.items()
        for name, x in found.items()
    }


# The front end, by torchlibrosa


def torchlibrosa_log_mel(front_end: str, waveform: np.ndarray) -> np.ndarray:
    """(L,) -> (F, 64) dB by torchlibrosa in float32, by the reference's own parameters."""
    rate, window, n_fft, hop, fmax = reference.FRONT_ENDS[front_end]
    spectrogram = torchlibrosa.Spectrogram(
        n_fft=n_fft,
        hop_length=hop,
        win_length=n_fft,
        window=window,
        center=True,
        pad_mode="reflect",
        freeze_parameters=True,
    )
    mel = torchlibrosa.LogmelFilterBank(
        sr=rate, n_fft=n_fft, n_mels=64, fmin=50, fmax=fmax, ref=1.0, amin=1e-10, top_db=None
    )
    with torch.no_grad():
        return mel(spectrogram(torch.from_numpy(waveform)[None]))[0, 0].numpy()
