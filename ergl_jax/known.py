"""How far a recording is from those that a model was trained on, to abstain from unknown sounds.

A Gaussian of features of the training clips: the variances along the `directions` of largest
variance, and their mean along all others (probabilistic PCA, Tipping & Bishop, 1999).

Shapes: N clips, D features, r directions, V validation clips.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

KEEP = 0.9  # the share of known recordings that are answered
MAX_DIRECTIONS = 32
MIN_VALIDATION = 10  # clips; fewer are too few to set a limit


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """The Gaussian of a bundle's training clips, and the distances of its validation clips.

    Attributes:
      mean: (D,).
      directions: (r, D), orthonormal.
      variances: (r + 1,), along them, and the mean one along all others.
      distances: (V,), of validation clips, ascending.
    """

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    distances: np.ndarray

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Distances (N,) of features (N, D) from the mean, about 1 for training clips.

        The root of the mean square over features, in standard deviations.
        """
        away = features.astype(np.float64) - self.mean
        along = np.square(away @ self.directions.T)
        rest = np.maximum(np.square(away).sum(axis=1) - along.sum(axis=1), 0)
        squares = (np.c_[along, rest] / self.variances).sum(axis=1)
        return np.sqrt(squares / len(self.mean))

    def limit(self, keep: float = KEEP) -> float:
        """The distance that a share `keep` of new clips of known classes is expected not to exceed.

        Assumes that they are distributed as the validation clips; the share is at most V / (V + 1).
        Infinite for `keep` = 1.
        """
        if keep >= 1:
            return float("inf")
        # Of V + 1 clips, a new one is as often the k-th as the others are.
        kept = int(np.ceil(keep * (len(self.distances) + 1) - 1e-9))
        return float(self.distances[np.clip(kept, 1, len(self.distances)) - 1])

    def arrays(self) -> dict[str, np.ndarray]:
        """The attributes by name."""
        return {x.name: getattr(self, x.name) for x in dataclasses.fields(self)}


def fit(features: np.ndarray, validation: np.ndarray) -> Known | None:
    """Fits to features of training clips (N, D) and of validation clips (V, D).

    None if there are fewer than MIN_VALIDATION of these, or too few training clips.
    """
    from scipy.linalg import eigh  # slow to import

    features = features.astype(np.float64)
    spare, size = len(features) - 1, features.shape[1]
    count = min(MAX_DIRECTIONS, spare // 2, size - 1)
    if len(validation) < MIN_VALIDATION or count < 1:
        return None
    mean = features.mean(axis=0)
    covariance = (features - mean).T @ (features - mean) / spare
    variances, directions = eigh(covariance, subset_by_index=(size - count, size - 1))
    rest = (covariance.trace() - variances.sum()) / (size - count)
    if not rest > 1e-9 * covariance.trace():  # features that hardly vary
        return None
    known = Known(
        mean=mean.astype(np.float32),
        directions=directions.T.astype(np.float32),
        variances=np.r_[variances, rest].astype(np.float32),
        distances=np.zeros(0, np.float32),
    )
    distances = np.sort(known.distance(validation)).astype(np.float32)
    return dataclasses.replace(known, distances=distances)


def parse(arrays: Mapping[str, np.ndarray]) -> Known:
    """The Known of `arrays`; ValueError unless their names, types and shapes fit each other."""
    names = [x.name for x in dataclasses.fields(Known)]
    if sorted(arrays) != sorted(names):
        raise ValueError(f"known/ has {', '.join(sorted(arrays))}, not {', '.join(names)}")
    found = Known(**arrays)
    size, count = found.mean.size, found.variances.size - 1
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (size,),
        "directions": (count, size),
        "variances": (count + 1,),
        "distances": (found.distances.size,),
    }
    for name, shape in shapes.items():
        array = arrays[name]
        if array.dtype != np.float32 or array.shape != shape or not array.size:
            raise ValueError(f"known/{name} is {array.dtype} {array.shape}, not float32 {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"known/{name} is not finite")
    if not (found.variances > 0).all():
        raise ValueError("known/variances are not positive")
    return found
