"""The systems of the paper's tables by name, and the settings that each allows.

registry.py builds them; the file of each names its source.
"""

from typing import NamedTuple

DTYPES = ("float32", "bfloat16")
_OF_SCENES = ("ergl", "bce", "scene")
_OF_EVENTS = (*_OF_SCENES, "events", "joint", "rgasc_log", "rgasc_prob")
OF_EVENTS_ALONE = ("events", "activity", "frames")  # losses
# Trainers without gradient descent, and the (model.name, model.variant) that each trains.
CLOSED_FORM = {
    "relations": ("ergl_dynamic", "relations"),
    "svm": ("mltf", "svm"),
    "ensemble": ("nnf", "ensemble"),
}


class System(NamedTuple):
    """How a model may be trained.

    Attributes:
      losses: what `train.loss` may be.
      events: whether it learns events.
      pretrained: its submodules that `model.init_from` may initialise.
      variants: what `model.variant` may be; none: the system has one form.
    """

    losses: tuple[str, ...] = _OF_SCENES
    events: bool = False
    pretrained: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


SYSTEMS = {
    "ergl": System(_OF_EVENTS, events=True, pretrained=("encoder",)),
    "ergl_dynamic": System(
        OF_EVENTS_ALONE,
        events=True,
        pretrained=("encoder",),
        variants=("events", "relations"),
    ),
    "cnn": System(pretrained=("encoder",)),
    "pann": System((), events=True, variants=("", "decision_level_max", "decision_level_att")),
    "pann_scene": System(
        pretrained=("encoder", "fc1", "fc_audioset"), variants=("embedding", "tags")
    ),
    "dcase2018": System(),
    "surrey": System(),
    "nnf": System(variants=("mel", "filtered", "both", "ensemble")),
    "attention_crnn": System(),
    "abcnn": System((*_OF_SCENES, "nll")),
    "mltf": System(variants=("cnn", "svm")),
    "wavelet_crnn": System(),
    "joint": System(_OF_EVENTS, events=True),
    "mtl": System(_OF_EVENTS, events=True),
    "conditional": System(("conditional",), events=True),
    "rgasc": System(_OF_EVENTS, events=True),
}
