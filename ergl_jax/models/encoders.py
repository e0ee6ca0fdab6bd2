"""The encoders by architecture."""

from ergl_jax.models.mobilenet import MobileNetEncoder
from ergl_jax.models.panns import Encoder
from ergl_jax.models.resnet import ResNetEncoder
from ergl_jax.models.wavegram import WavegramEncoder

_KINDS = (Encoder, ResNetEncoder, MobileNetEncoder, WavegramEncoder)
ENCODERS: dict[str, type[Encoder]] = {name: x for x in _KINDS for name in x.ARCHITECTURES}
