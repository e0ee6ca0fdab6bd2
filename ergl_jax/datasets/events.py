"""Which events become the nodes of the graph (§3.1)."""

import numpy as np

from ergl_jax.errors import InputError


def rank_events(probabilities: np.ndarray) -> np.ndarray:
    """Indices of events by probability accumulated over clips (N, E), highest first."""
    return np.argsort(-probabilities.sum(axis=0, dtype=np.float64), kind="stable")


def top_events(probabilities: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of `rank_events`, or an InputError where there aren't so many."""
    available = probabilities.shape[1]
    if not 1 <= count <= available:
        raise InputError(
            f"data.num_events={count}, but the dataset has {available} events: set "
            f"--config.data.num_events to 1..{available}"
            if available
            else "the dataset has no events, which ERGL needs: add event columns or an .npz of "
            "event probabilities to the manifest, or train --config.model.name=cnn"
        )
    return rank_events(probabilities)[:count]
