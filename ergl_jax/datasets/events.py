"""Which events become the nodes of the graph (§3.1)."""

from collections.abc import Sequence

import numpy as np

from ergl_jax.datasets.tables import nfc
from ergl_jax.errors import InputError
from ergl_jax.files import read_text, user_path

PAPER = (
    "data.events=paper: the paper's list of 25 events is not published (it begins Speech, Vehicle, "
    "Music, Silence, Animal): leave data.events empty to take the most probable of the training "
    "split, as the paper did, or write a list with data_prep/rank_events.py"
)


def rank_events(probabilities: np.ndarray) -> np.ndarray:
    """Indices of events by probability summed over clips (N, E), highest first."""
    return np.argsort(-probabilities.sum(axis=0, dtype=np.float64), kind="stable")


def choose_events(
    names: Sequence[str],
    probabilities: np.ndarray,
    *,
    count: int,
    listed: Sequence[str] = (),
    source: str = "",
) -> np.ndarray:
    """Indices of the first `count` events of a list, else of `rank_events`.

    Args:
      names: the dataset's events (E).
      probabilities: of the training clips, (N, E).
      count: how many.
      listed: the names that `read_list` found in the file `source`.

    Raises:
      InputError: too few events, or the list contains an event that the dataset does not have.
    """
    check_events(names, count=count, listed=listed, source=source)
    order = np.array([names.index(x) for x in listed]) if listed else rank_events(probabilities)
    return order[:count]


def check_events(
    names: Sequence[str], *, count: int, listed: Sequence[str] = (), source: str = ""
) -> None:
    """InputError unless `choose_events` can choose; it needs no probabilities, so no clips."""
    if not names:
        raise InputError(
            "the dataset has no events, which ERGL needs: add event columns or an .npz of "
            "event probabilities to the manifest, or set model.name=cnn"
        )
    if unknown := [name for name in listed if name not in names]:
        raise InputError(f"{source}: the dataset has no event {unknown[0]!r}: remove it")
    available = len(listed or names)
    if count > available:
        raise InputError(
            f"data.num_events={count}, but {source or 'the dataset'} has {available} events: set "
            f"data.num_events to 1..{available}"
        )


def read_list(ranking: str) -> list[str]:
    """The names in a list of events, one a line; none if `ranking` is "".

    Raises:
      InputError: "paper", whose list isn't published, or a file that can't be read, is empty or
        contains an event twice.
    """
    if not ranking:
        return []
    if ranking == "paper":
        raise InputError(PAPER)
    text = read_text(user_path(ranking), f"correct data.events={ranking}")
    names = [nfc(line.strip()) for line in text.splitlines() if line.strip()]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated or not names:
        reason = f"contains {repeated[0]!r} twice" if repeated else "is empty"
        raise InputError(f"data.events={ranking}: the list {reason}")
    return names
