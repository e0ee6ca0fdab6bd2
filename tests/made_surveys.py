"""Surveys of random numbers, for tests of the atlas."""

import dataclasses

import numpy as np

from ergl_jax.inference import atlas
from ergl_jax.inference.relations import strongest
from ergl_jax.models.dynamic import LAGS

SCENES, EVENTS = ("park", "street", "home", "moon"), ("Dog", "Rain", "Bell")


def hand_made(seed=0, clips=30):
    """Clips of three scenes of four, most of them classified correctly."""
    rng = np.random.default_rng(seed)
    truth = np.arange(clips) % 3
    logits = rng.standard_normal((clips, 4)) + 2 * np.eye(4)[truth]
    return atlas.Survey(
        SCENES,
        EVENTS,
        tuple(f"clip{k}" for k in range(clips)),
        truth,
        np.exp(logits) / np.exp(logits).sum(1, keepdims=True),
        rng.random((clips, 3)),
        rng.standard_normal((clips, 3, 3)),
        rng.standard_normal((clips, 3)),
        rng.standard_normal((clips, 3, 3)),
        "made up",
    )


def predicting(survey, predictions):
    """The survey with other predictions: clip -> scene, all others certain and right."""
    predicted = survey.truth.copy()
    for clip, scene in predictions.items():
        predicted[clip] = scene
    p = np.full((len(predicted), 4), 0.01)
    p[np.arange(len(predicted)), predicted] = 0.97
    return dataclasses.replace(survey, probabilities=p)


def of_lags(seed=0, clips=30):
    """The same of the dynamic event graph: Dog follows Bell by 1 s in park, Bell Dog in street.

    Only they count.
    """
    survey = hand_made(seed, clips)
    rng = np.random.default_rng(seed)
    edges = rng.normal(size=(clips, 3, 3, len(LAGS))) / 50
    edges[..., 0] += edges[..., 0].swapaxes(1, 2)  # two events correlate without a lag in one way
    park, street = survey.truth == 0, survey.truth == 1
    edges[park, 0, 2, 2] += 0.5
    edges[street, 2, 0, 2] += 0.5
    contributions = np.zeros((clips, 3, 3))
    contributions[:, 0, 2] = rng.normal(size=clips)
    return dataclasses.replace(
        survey,
        edges=edges,
        lags=LAGS,
        edge_means=np.stack([strongest(each) for each in edges]),
        edge_contributions=contributions,
    )
