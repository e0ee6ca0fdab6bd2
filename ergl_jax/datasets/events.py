"""Which events become the nodes of the graph (§3.1)."""

from collections.abc import Sequence

import numpy as np

from ergl_jax.errors import InputError
from ergl_jax.files import user_path

PAPER = (
    "data.events=paper: the paper's list of 25 events is not published (it begins Speech, Vehicle, "
    "Music, Silence, Animal): leave data.events empty to take the most probable of the training "
    "split, as the paper did, or write a list with data_prep/rank_events.py"
)


def rank_events(probabilities: np.ndarray) -> np.ndarray:
    """Indices of events by probability accumulated over clips (N, E), highest first."""
    return np.argsort(-probabilities.sum(axis=0, dtype=np.float64), kind="stable")


def choose_events(
    names: Sequence[str], probabilities: np.ndarray, *, ranking: str, count: int
) -> np.ndarray:
    """Indices of the first `count` events of a ranking.

    Args:
      names: the dataset's events (E).
      probabilities: of the training clips, (N, E).
      ranking: "" for that of `rank_events`, else as `read_list` takes it.

    Raises:
      InputError: there aren't so many, or the list names one that the dataset hasn't.
    """
    if not names:
        raise InputError(
            "the dataset has no events, which ERGL needs: add event columns or an .npz of "
            "event probabilities to the manifest, or train --config.model.name=cnn"
        )
    order, source = rank_events(probabilities), "the dataset"
    if ranking:
        listed, source = read_list(ranking), ranking
        if strange := [name for name in listed if name not in names]:
            raise InputError(f"{ranking}: the dataset has no event {strange[0]!r}")
        order = np.array([names.index(name) for name in listed])
    if not 1 <= count <= len(order):
        raise InputError(
            f"data.num_events={count}, but {source} has {len(order)} events: set "
            f"--config.data.num_events to 1..{len(order)}"
        )
    return order[:count]


def read_list(ranking: str) -> list[str]:
    """The names in a list of events, one a line; none for "", which asks for no list.

    Raises:
      InputError: "paper", whose list isn't known, or a file that can't be read, is empty or names
        an event twice.
    """
    if not ranking:
        return []
    if ranking == "paper":
        raise InputError(PAPER)
    try:
        lines = user_path(ranking).read_bytes().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"data.events={ranking}: the list can't be read: {reason}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"data.events={ranking}: the list is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"data.events={ranking}: the list names {twice!r} twice")
    return names
