"""The models as ONNX graphs, operator by operator, BatchNorm folded into the convolutions.

Kept beside the Flax modules by `export.write`, which compares each graph with its bundle.

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels, n events, C channels.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ergl_jax.bundle import Bundle
from ergl_jax.kernels import batch_norm
from ergl_jax.models import panns

OPSET, IR_VERSION = 18, 8  # of 2022: what runtimes have long read


def build(bundle: Bundle) -> onnx.ModelProto:
    """log_mel (B, F, M) float32 -> scene_probabilities and event_probabilities, where it has them.

    The bundle is an ERGL's, a CNN's or a PANN's, of float32.
    """
    parts = {"ergl": _ergl, "cnn": _cnn, "pann": _pann}
    graph = _Graph()
    params, stats = bundle.variables["params"], bundle.variables["batch_stats"]
    h = _encoder(graph, "log_mel", bundle, params["encoder"], stats["encoder"])
    logits = parts[bundle.model["name"]](graph, h, bundle, params, stats)
    outputs = []
    if "scenes" in logits:
        scaled = graph("Div", logits["scenes"], np.float32(bundle.temperature))
        graph.name(graph("Softmax", scaled, axis=-1), "scene_probabilities")
        outputs.append(_value("scene_probabilities", len(bundle.scenes)))
    if "events" in logits:
        graph.name(graph.sigmoid(logits["events"]), "event_probabilities")
        outputs.append(_value("event_probabilities", len(bundle.events)))
    front_end = bundle.front_end
    frames = front_end.num_frames(bundle.clip_seconds)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "ergl_jax",
            [_value("log_mel", frames, front_end.n_mels)],
            outputs,
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ergl_jax",
    )
    onnx.checker.check_model(model)
    return model


def _value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


class _Graph:
    """Nodes and tensors as they come: calling it adds a node and returns its output's name."""

    def __init__(self):
        self.nodes, self.tensors = [], []

    def __call__(self, operator: str, *inputs: str | np.ndarray, **attributes) -> str:
        names = [x if isinstance(x, str) else self._tensor(np.asarray(x)) for x in inputs]
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def name(self, output: str, name: str) -> None:
        """Renames the output of the last node."""
        assert self.nodes[-1].output[0] == output
        self.nodes[-1].output[0] = name

    def _tensor(self, array: np.ndarray) -> str:
        kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        name = f"tensor_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array, kind), name))
        return name

    def dense(self, x: str, params: Mapping) -> str:
        """A Dense layer over the last axis."""
        y = self("MatMul", x, params["kernel"])
        return self("Add", y, params["bias"]) if "bias" in params else y

    def sigmoid(self, x: str) -> str:
        """1 / (1 + exp(-x)): gates divide by small ones, and onnxruntime's own is 0 below -18."""
        return self("Div", np.float32(1), self("Add", self("Exp", self("Neg", x)), np.float32(1)))

    def batch_norm(self, x: str, params: Mapping, stats: Mapping) -> str:
        """BatchNorm over the last axis."""
        factor, offset = _line(params, stats)
        return self("Add", self("Mul", x, factor), offset)

    def max_and_mean(self, x: str, axis: int, keepdims: int) -> str:
        """Their sum."""
        pools = [self(f"Reduce{kind}", x, [axis], keepdims=keepdims) for kind in ("Max", "Mean")]
        return self("Add", *pools)


def _line(params: Mapping, stats: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """BatchNorm as a factor and an offset, (C,) each."""
    factor = params["scale"] / np.sqrt(stats["var"] + np.float32(batch_norm.EPSILON))
    return factor, params["bias"] - stats["mean"] * factor


def _encoder(graph: _Graph, x: str, bundle: Bundle, params: Mapping, stats: Mapping) -> str:
    """(B, F, M) -> (B, D, T): channels first, as ONNX pools."""
    spec = panns.architecture(bundle.model["encoder"]["architecture"])
    x = graph.batch_norm(x, params["BatchNorm_0"], stats["BatchNorm_0"])
    x = graph("Unsqueeze", x, [1])  # (B, 1, F, M)
    for index in range(len(spec.channels)):
        block = f"ConvBlock_{index}"
        for layer in range(spec.convolutions):
            norm = f"BatchNormReLU_{layer}"
            factor, offset = _line(params[block][norm], stats[block][norm])
            kernel = params[block][f"Conv_{layer}"]["kernel"] * factor  # (K, K, C, D)
            pads = [spec.kernel // 2] * 4
            x = graph("Conv", x, kernel.transpose(3, 2, 0, 1), offset, pads=pads)
            x = graph("Relu", x)
        if index < spec.pools:
            x = graph("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return graph("ReduceMean", x, [3], keepdims=0)


def _cnn(graph: _Graph, h: str, bundle: Bundle, params: Mapping, stats: Mapping) -> dict:
    z = graph("Relu", graph.dense(graph.max_and_mean(h, 2, 0), params["shared"]))
    return {"scenes": graph.dense(z, params["scene"])}


def _pann(graph: _Graph, h: str, bundle: Bundle, params: Mapping, stats: Mapping) -> dict:
    z = graph("Relu", graph.dense(graph.max_and_mean(h, 2, 0), params["fc1"]))
    return {"events": graph.dense(z, params["fc_audioset"])}


def _ergl(graph: _Graph, h: str, bundle: Bundle, params: Mapping, stats: Mapping) -> dict:
    v, tokens = _event_tokens(graph, h, bundle, params["events"])  # (B, n, T, C)
    head, n, channels = params["head"], len(bundle.events), bundle.model["channels"]
    nodes = graph("Div", graph.max_and_mean(v, 2, 0), np.float32(2))
    classifier = head["event_classifier"]
    weighted = graph("Mul", nodes, classifier["kernel"])
    events = graph("Add", graph("ReduceSum", weighted, [2], keepdims=0), classifier["bias"])
    if bundle.model["mel"]:
        edges = _edges(graph, v, head["mel"], (n, tokens, channels))
    else:
        edges = graph("Identity", np.zeros((1, n, n, channels), np.float32))
    for layer in range(bundle.model["gcn"]["layers"]):
        gcn = f"gcn{layer}"
        gate = bundle.model["gcn"]["gate"]
        nodes, edges = _gated_gcn(graph, nodes, edges, head[gcn], stats["head"][gcn], gate, n)
    flat = graph("Reshape", nodes, [-1, n * channels])
    return {"scenes": graph.dense(flat, head["scene"]), "events": events}


def _event_tokens(graph: _Graph, h: str, bundle: Bundle, params: Mapping) -> tuple[str, int]:
    """(B, D, T) -> v (B, n, T, C) and T, which is 1 for tokens="clip"."""
    spec = panns.architecture(bundle.model["encoder"]["architecture"])
    if bundle.model["tokens"] == "clip":
        tokens, z = 1, graph.max_and_mean(h, 2, 1)
    else:
        tokens = bundle.front_end.num_frames(bundle.clip_seconds) // 2**spec.pools
        pool = {"kernel_shape": [3], "pads": [1, 1]}
        most, mean = (
            graph("MaxPool", h, **pool),
            graph("AveragePool", h, count_include_pad=1, **pool),
        )
        z = graph("Add", most, mean)
    z = graph("Transpose", z, perm=[0, 2, 1])  # (B, T, D)
    g = graph("Unsqueeze", graph("Relu", graph.dense(z, params["shared"])), [1])
    return graph("Relu", graph.dense(g, params)), tokens  # its kernel is (n, D, C)


def _edges(graph: _Graph, v: str, params: Mapping, shape: tuple[int, int, int]) -> str:
    """MEL: tokens (B, n, T, C) -> edges (B, n, n, C), the one at [b, i, j] received by i."""
    n, tokens, channels = shape

    def attention(x: str, params: Mapping) -> tuple[str, str]:
        """(B, nT, C) -> logits (B, nT, nT) and values (B, nT, C)."""
        params = params["_Projections_0"]
        scaled = params["query"]["kernel"] / np.sqrt(np.float32(channels))
        query, key = graph("MatMul", x, scaled), graph.dense(x, params["key"])
        logits = graph("MatMul", query, graph("Transpose", key, perm=[0, 2, 1]))
        return logits, graph.dense(x, params["value"])

    x = graph("Reshape", v, [-1, n * tokens, channels])
    logits, value = attention(x, params["ncm"])
    s = graph("MatMul", graph("Softmax", logits, axis=-1), value)
    logits, value = attention(s, params["nnm"])
    logits = graph("Reshape", logits, [-1, n, tokens, n, tokens])  # j asks, i answers
    weights = graph("ReduceMean", graph("Softmax", logits, axis=-1), [2], keepdims=0)
    weights = graph("Transpose", weights, perm=[0, 2, 1, 3])  # (B, i, j, T)
    return graph("MatMul", weights, graph("Reshape", value, [-1, n, tokens, channels]))


def _gated_gcn(
    graph: _Graph, h: str, e: str, params: Mapping, stats: Mapping, gate: str, n: int
) -> tuple[str, str]:
    """Nodes (B, n, C) and edges (B, n, n, C) after a layer."""

    def normed(x: str, index: int) -> str:
        name = f"BatchNormReLU_{index}"
        return graph("Relu", graph.batch_norm(x, params[name], stats[name]))

    receiver = graph("Unsqueeze", graph.dense(h, params["A"]), [2])
    sender = graph("Unsqueeze", graph.dense(h, params["B"]), [1])
    e_hat = graph("Add", graph("Add", receiver, sender), graph.dense(e, params["C"]))
    e = graph("Add", e, normed(e_hat, 0))
    if gate == "sigmoid":
        sigma = graph.sigmoid(e_hat)
        total = graph("ReduceSum", sigma, [2], keepdims=1)
        eta = graph("Div", sigma, graph("Add", total, np.float32(1e-6)))
    else:
        eta = graph("Div", graph("Softmax", graph.sigmoid(e), axis=2), np.float32(n))
    sent = graph("Mul", eta, graph("Unsqueeze", graph.dense(h, params["V"]), [1]))
    received = graph("ReduceSum", sent, [2], keepdims=0)
    nodes = graph("Add", graph.dense(h, params["U"]), received)
    return graph("Add", h, normed(nodes, 1)), e
