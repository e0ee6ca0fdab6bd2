"""ERGL, the dynamic event graph, CNN and PANN as ONNX graphs, operator by operator.

BatchNorm is folded into convolutions. It follows the Flax modules; `export.write` compares every
graph with its bundle.

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels, n events, C channels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partialmethod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ergl_jax.bundle import Bundle
from ergl_jax.kernels import batch_norm
from ergl_jax.models import dynamic, panns

OPSET, IR_VERSION = 18, 8  # of 2022, so that older runtimes can read them


def build(bundle: Bundle) -> onnx.ModelProto:
    """log_mel (B, F, M) float32 -> scene_probabilities and event_probabilities, if it has them."""
    params, stats = bundle.variables["params"], bundle.variables["batch_stats"]
    log_mel = _value("log_mel", *bundle.clip_shape)
    graph = onnx.GraphProto(name="ergl_jax", input=[log_mel])
    h = _encoder(_Tensor(graph, "log_mel"), bundle, params["encoder"], stats["encoder"])
    scenes = events = None
    if bundle.model.name == "ergl":
        scenes, events = _ergl(h, bundle, params, stats["head"])
    elif bundle.model.name == "ergl_dynamic":
        scenes, events = _dynamic(h, bundle, params)
    elif bundle.model.name == "cnn":
        scenes = _two_layers(h, params["shared"], params["scene"])
    else:
        events = _two_layers(h, params["fc1"], params["fc_audioset"])
    if scenes:
        scenes = (scenes / bundle.temperature).softmax(axis=-1)
        scenes.output("scene_probabilities", len(bundle.scenes))
    if events:
        events.sigmoid().output("event_probabilities", len(bundle.events))
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="ergl_jax"
    )
    onnx.checker.check_model(model)
    return model


def _value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


@dataclasses.dataclass
class _Tensor:
    """A tensor of a graph; operations add a node to the graph and return the node's output."""

    graph: onnx.GraphProto
    name: str

    def op(self, operator: str, *others: "_Operand", **attributes) -> "_Tensor":
        names = [self.name, *(self.constant(x).name for x in others)]
        output = f"{operator}_{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(operator, names, [output], **attributes))
        return _Tensor(self.graph, output)

    def constant(self, value: "_Operand") -> "_Tensor":
        if isinstance(value, _Tensor):
            return value
        array = np.asarray(value)
        dtype = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        name = f"tensor_{len(self.graph.initializer)}"
        array = np.ascontiguousarray(array, dtype)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return _Tensor(self.graph, name)

    def output(self, name: str, size: int) -> None:
        """Makes the last node's output (B, size) an output of the graph, under this name."""
        self.graph.node[-1].output[0] = name
        self.graph.output.append(_value(name, size))

    __add__ = partialmethod(op, "Add")
    __mul__ = partialmethod(op, "Mul")
    __sub__ = partialmethod(op, "Sub")
    __truediv__ = partialmethod(op, "Div")
    __matmul__ = partialmethod(op, "MatMul")
    expand_dims = partialmethod(op, "Unsqueeze")
    max = partialmethod(op, "ReduceMax")
    mean = partialmethod(op, "ReduceMean")
    relu = partialmethod(op, "Relu")
    reshape = partialmethod(op, "Reshape")
    softmax = partialmethod(op, "Softmax")
    sum = partialmethod(op, "ReduceSum")
    transpose = partialmethod(op, "Transpose")

    def sigmoid(self) -> "_Tensor":
        """1 / (1 + exp(-x)); onnxruntime's own is 0 below -18, but gates divide by small ones."""
        one = self.constant(1.0)
        return one / (self.op("Neg").op("Exp") + one)

    def dense(self, params: Mapping) -> "_Tensor":
        y = self @ params["kernel"]
        return y + params["bias"] if "bias" in params else y

    def batch_norm(self, params: Mapping, stats: Mapping) -> "_Tensor":
        """Over the last axis."""
        factor, offset = _affine(params, stats)
        return self * factor + offset

    def max_plus_mean(self, axis: int, keepdims: int = 0) -> "_Tensor":
        return self.max([axis], keepdims=keepdims) + self.mean([axis], keepdims=keepdims)


_Operand = _Tensor | np.ndarray | float | Sequence[int]


def _affine(params: Mapping, stats: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """BatchNorm as a factor and an offset, (C,) each."""
    factor = params["scale"] / np.sqrt(stats["var"] + np.float32(batch_norm.EPSILON))
    return factor, params["bias"] - stats["mean"] * factor


def _encoder(x: _Tensor, bundle: Bundle, params: Mapping, stats: Mapping) -> _Tensor:
    """(B, F, M) -> (B, D, T): channels first, as ONNX pools."""
    spec = panns.ARCHITECTURES[bundle.model.encoder.architecture]
    x = x.batch_norm(params["BatchNorm_0"], stats["BatchNorm_0"])
    x = x.expand_dims([1])  # (B, 1, F, M)
    for index in range(len(spec.channels)):
        block = f"ConvBlock_{index}"
        for layer in range(spec.convolutions):
            norm = f"BatchNormReLU_{layer}"
            factor, offset = _affine(params[block][norm], stats[block][norm])
            kernel = params[block][f"Conv_{layer}"]["kernel"] * factor  # (K, K, C, D)
            pads = [spec.kernel // 2] * 4
            x = x.op("Conv", kernel.transpose(3, 2, 0, 1), offset, pads=pads).relu()
        if index < spec.pools:
            time = 2 if index < (bundle.model.encoder.time_pools or spec.pools) else 1
            x = x.op("AveragePool", kernel_shape=[time, 2], strides=[time, 2])
    return x.mean([3], keepdims=0)


def _num_frames(bundle: Bundle) -> int:
    """T, of a clip."""
    frames = bundle.front_end.num_frames(bundle.clip_seconds)
    return frames // _module(bundle).encoder.frames_per_step


def _module(bundle: Bundle) -> Any:
    return bundle.build()


def _two_layers(h: _Tensor, hidden: Mapping, last: Mapping) -> _Tensor:
    """The head of a CNN or a PANN: (B, D, T) -> logits."""
    return h.max_plus_mean(2).dense(hidden).relu().dense(last)


def _ergl(h: _Tensor, bundle: Bundle, params: Mapping, stats: Mapping) -> tuple[_Tensor, _Tensor]:
    """(B, D, T) -> scene and event logits."""
    v, tokens = _event_tokens(h, bundle, params["events"])  # (B, n, T, C)
    head, n, channels = params["head"], len(bundle.events), bundle.model.channels
    nodes = v.max_plus_mean(2) / 2.0
    classifier = head["event_classifier"]
    events = (nodes * classifier["kernel"]).sum([2], keepdims=0) + classifier["bias"]
    if bundle.model.mel:
        edges = _edges(v, head["mel"], n, tokens, channels)
    else:
        edges = h.constant(np.zeros((1, n, n, channels), np.float32))
    for layer in range(bundle.model.gcn.layers):
        gcn, gate = f"gcn{layer}", bundle.model.gcn.gate
        nodes, edges = _gated_gcn(nodes, edges, head[gcn], stats[gcn], gate, n)
    return nodes.reshape([-1, n * channels]).dense(head["scene"]), events


def _dynamic(h: _Tensor, bundle: Bundle, params: Mapping) -> tuple[_Tensor, _Tensor]:
    """(B, D, T) -> scene and event logits; see models/dynamic.py."""
    n, frames, seconds = len(bundle.events), _num_frames(bundle), _module(bundle).step_seconds
    p = h.transpose(perm=[0, 2, 1]).dense(params["activity"]["events"]).sigmoid()
    p = p.transpose(perm=[0, 2, 1])  # (B, n, T)
    y = p.mean([2], keepdims=0)
    if bundle.model.pooling == "linear":
        y = (p * p).sum([2], keepdims=0) / (p.sum([2], keepdims=0) + 1e-6)
    y = y.op("Clip", 1e-6, 1 - 1e-6)
    logits = (y / (y * -1.0 + 1.0)).op("Log")
    share = p.mean([2], keepdims=1)  # (B, n, 1)
    presence = ((p.max([2], keepdims=1) - 0.2) / 0.4).op("Clip", 0.0, 1.0)
    nodes = share.op("Concat", presence, axis=2).reshape([-1, 2 * n])
    scenes = nodes.dense(params["readout"]["nodes"])
    if bundle.model.mel:
        q = p - share
        size = (q * q).sum([2], keepdims=1).op("Sqrt")
        scale = size @ size.transpose(perm=[0, 2, 1]) + dynamic.SMALL * frames
        both = presence @ presence.transpose(perm=[0, 2, 1]) * (1 - np.eye(n))
        later = dynamic.blurred_shifts(frames, seconds).swapaxes(1, 2)[None]  # (1, K, T, T)
        shifted = q.expand_dims([1]) @ later  # (B, K, n, T)
        edges = shifted @ q.transpose(perm=[0, 2, 1]).expand_dims([1])  # (B, K, n, n)
        edges = (edges * (both / scale).expand_dims([1])).transpose(perm=[0, 2, 3, 1])
        width = n * n * len(dynamic.LAGS)
        scenes = scenes + edges.reshape([-1, width]).dense(params["readout"]["edges"])
    return scenes, logits


def _event_tokens(h: _Tensor, bundle: Bundle, params: Mapping) -> tuple[_Tensor, int]:
    """(B, D, T) -> v (B, n, T, C) and T, which is 1 for tokens="clip"."""
    if bundle.model.tokens == "clip":
        tokens, z = 1, h.max_plus_mean(2, keepdims=1)
    else:
        tokens = _num_frames(bundle)
        pool = {"kernel_shape": [3], "pads": [1, 1]}
        z = h.op("MaxPool", **pool) + h.op("AveragePool", count_include_pad=1, **pool)
    g = z.transpose(perm=[0, 2, 1]).dense(params["shared"]).relu()  # (B, T, D)
    return g.expand_dims([1]).dense(params).relu(), tokens  # the kernel is (n, D, C)


def _edges(v: _Tensor, params: Mapping, n: int, tokens: int, channels: int) -> _Tensor:
    """MEL: tokens (B, n, T, C) -> edges (B, n, n, C), the one at [b, i, j] received by i."""

    def attention(x: _Tensor, params: Mapping) -> tuple[_Tensor, _Tensor]:
        """(B, nT, C) -> logits (B, nT, nT) and values (B, nT, C)."""
        params = params["_Projections_0"]
        query = x @ (params["query"]["kernel"] / np.sqrt(np.float32(channels)))
        return query @ x.dense(params["key"]).transpose(perm=[0, 2, 1]), x.dense(params["value"])

    logits, value = attention(v.reshape([-1, n * tokens, channels]), params["ncm"])
    logits, value = attention(logits.softmax(axis=-1) @ value, params["nnm"])
    logits = logits.reshape([-1, n, tokens, n, tokens])  # (B, j, T, i, T): queries of j
    weights = (
        logits.softmax(axis=-1).mean([2], keepdims=0).transpose(perm=[0, 2, 1, 3])
    )  # (B, i, j, T)
    return weights @ value.reshape([-1, n, tokens, channels])


def _gated_gcn(
    h: _Tensor, e: _Tensor, params: Mapping, stats: Mapping, gate: str, n: int
) -> tuple[_Tensor, _Tensor]:
    """Nodes (B, n, C) and edges (B, n, n, C) after a layer."""

    def norm_relu(x: _Tensor, name: str) -> _Tensor:
        return x.batch_norm(params[name], stats[name]).relu()

    receiver, sender = h.dense(params["A"]).expand_dims([2]), h.dense(params["B"]).expand_dims([1])
    e_hat = receiver + sender + e.dense(params["C"])
    e = e + norm_relu(e_hat, "BatchNormReLU_0")
    if gate == "sigmoid":
        sigma = e_hat.sigmoid()
        eta = sigma / (sigma.sum([2], keepdims=1) + 1e-6)
    else:
        eta = e.sigmoid().softmax(axis=2) / float(n)
    received = (eta * h.dense(params["V"]).expand_dims([1])).sum([2], keepdims=0)
    return h + norm_relu(h.dense(params["U"]) + received, "BatchNormReLU_1"), e
