"""The rows of a split of a prepared dataset."""

import numpy as np


class SceneSplit:
    """Random access to the rows of one split, in the order of the corpus."""

    def __init__(self, source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        """log_mel (F, M) float32, scene int32, events (E,) float32, name and group str.

        Also activity (F, E) float32: the share of each frame in which each event sounds, if the
        clips' times are known.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = self._source[index]
        names = {key: row[key].decode() for key in ("name", "group")}
        return row | names | {"scene": np.int32(row["scene"])}

    def arrays(self) -> dict:
        """All rows: log_mel (N, F, M), scene (N,), events (N, E)[, activity (N, F, E)].

        name and group are lists.
        """
        arrays = {
            key: np.empty((len(self), *np.shape(value)), getattr(value, "dtype", object))
            for key, value in self[0].items()
        }
        for i in range(len(self)):
            for key, value in self[i].items():
                arrays[key][i] = value
        return arrays | {key: arrays[key].tolist() for key in ("name", "group")}
