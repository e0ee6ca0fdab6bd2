"""ERGL and a whole PANN in PyTorch, written to be fast, for comparison with ergl_jax.

The equations of ergl_jax/models, optimised as PyTorch's users would: projections of one input are
one matrix product, NCM is PyTorch's own attention, ReLU works in place, and NNM with GAP is
factorised as in models/edges.py. tests/test_torch_ergl.py checks that both give the same numbers.
Only what the benchmarks need: tokens="frame", MEL, the sigmoid gate.

Shapes as in ergl_jax/models: B clips, F frames, M mel bins, T tokens, D encoder channels, n events,
C channels.
"""

import jax
import numpy as np
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict
from torch import nn

from ergl_jax.models import panns


class ConvBlock(nn.Module):
    def __init__(self, before: int, channels: int, spec, pool: bool, dropout: float):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for number in range(spec.convolutions):
            source, side = (channels if number else before), spec.kernel
            self.convs.append(nn.Conv2d(source, channels, side, padding=side // 2, bias=False))
            self.norms.append(nn.BatchNorm2d(channels))
        self.pool, self.dropout = pool, nn.Dropout(dropout)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        return self.dropout(F.avg_pool2d(x, 2) if self.pool else x)


class Encoder(nn.Module):
    """(B, F, M) in dB -> (B, D, T)."""

    def __init__(self, architecture: str, width_divisor: int, dropout: float, mels: int = 64):
        super().__init__()
        spec = panns.ARCHITECTURES[architecture]
        widths = [1, *(channels // width_divisor for channels in spec.channels)]
        self.norm = nn.BatchNorm1d(mels)
        self.blocks = nn.Sequential(
            *(
                ConvBlock(before, after, spec, number < spec.pools, dropout)
                for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False))
            )
        )
        self.width = widths[-1]

    def forward(self, log_mel):
        x = self.norm(log_mel.flatten(0, 1)).view_as(log_mel)
        return self.blocks(x[:, None]).mean(dim=3)


class EventEmbeddings(nn.Module):
    """(B, D, T) -> (B, n, T, C): the n layers of the events as one."""

    def __init__(self, width: int, events: int, channels: int, dropout: float):
        super().__init__()
        self.events, self.dropout = events, nn.Dropout(dropout)
        self.shared, self.each = nn.Linear(width, width), nn.Linear(width, events * channels)

    def forward(self, h):
        z = F.max_pool1d(h, 3, stride=1, padding=1) + F.avg_pool1d(h, 3, stride=1, padding=1)
        g = F.relu(self.shared(self.dropout(z.transpose(1, 2))), inplace=True)
        v = F.relu(self.each(g), inplace=True)
        return v.unflatten(2, (self.events, -1)).transpose(1, 2).contiguous()


class EdgeLearning(nn.Module):
    """NCM, then NNM and GAP: (B, n, T, C) -> edges (B, n, n, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.ncm = nn.Linear(channels, 3 * channels, bias=False)  # query, key, value
        self.nnm = nn.Linear(channels, 3 * channels, bias=False)

    def forward(self, v):
        batch, n, tokens, channels = v.shape
        # With an axis of one head, which PyTorch's fast kernels need.
        query, key, value = self.ncm(v.view(batch, 1, n * tokens, channels)).chunk(3, dim=-1)
        s = F.scaled_dot_product_attention(query, key, value)
        query, key, value = self.nnm(s.squeeze(1)).chunk(3, dim=-1)  # (B, n * T, C) each
        logits = (query * channels**-0.5) @ key.transpose(1, 2)
        attention = logits.view(batch, n, tokens, n, tokens).softmax(dim=-1).mean(dim=2)
        # (B, j, i, T) to (B, i, j, T): queries of j attend to the tokens of i, which receives.
        return attention.transpose(1, 2) @ value.view(batch, n, tokens, channels)


class GatedGCNLayer(nn.Module):
    """h (B, n, C), e (B, n, n, C) -> h', e'."""

    def __init__(self, channels: int):
        super().__init__()
        self.nodes = nn.Linear(channels, 4 * channels, bias=False)  # A, B, U, V
        self.edges = nn.Linear(channels, channels, bias=False)  # C
        self.edge_norm, self.node_norm = nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)

    def forward(self, h, e):
        a, b, u, v = self.nodes(h).chunk(4, dim=-1)
        e_hat = self.edges(e) + a[:, :, None] + b[:, None]
        # The divisor of the gates is the same for all senders: divide once per node.
        sigma = e_hat.float().sigmoid()
        received = (sigma * v[:, None]).sum(dim=2) / (sigma.sum(dim=2) + 1e-6)
        e = e + F.relu(self.edge_norm(e_hat.flatten(0, 2)), inplace=True).view_as(e)
        h = h + F.relu(self.node_norm((u + received).flatten(0, 1)), inplace=True).view_as(h)
        return h, e


class ERGL(nn.Module):
    """log_mel (B, F, M) -> scene logits (B, scenes) and event logits (B, n)."""

    def __init__(self, config, *, num_scenes: int, num_events: int):
        """`config` is a ModelConfig."""
        super().__init__()
        channels = config.channels
        self.encoder = Encoder(**_encoder(config))
        self.events = EventEmbeddings(self.encoder.width, num_events, channels, config.dropout)
        self.event_weight = nn.Parameter(torch.zeros(num_events, channels))
        self.event_bias = nn.Parameter(torch.zeros(num_events))
        self.mel = EdgeLearning(channels)
        self.gcn = nn.ModuleList(GatedGCNLayer(channels) for _ in range(config.gcn.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.scene = nn.Linear(num_events * channels, num_scenes)

    def forward(self, log_mel):
        v = self.events(self.encoder(log_mel))
        nodes = (v.amax(dim=2) + v.mean(dim=2)) / 2
        event_logits = (nodes * self.event_weight).sum(dim=-1) + self.event_bias
        edges = self.mel(v)
        for layer in self.gcn:
            nodes, edges = layer(nodes, edges)
        return self.scene(self.dropout(nodes.flatten(1))), event_logits


class PANN(nn.Module):
    """log_mel (B, F, M) -> event logits (B, n)."""

    def __init__(self, config, *, num_events: int):
        super().__init__()
        self.encoder = Encoder(**_encoder(config))
        self.fc1 = nn.Linear(self.encoder.width, self.encoder.width)
        self.fc_audioset = nn.Linear(self.encoder.width, num_events)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, log_mel):
        h = self.encoder(log_mel)
        z = F.relu(self.fc1(self.dropout(h.amax(dim=2) + h.mean(dim=2))))
        return self.fc_audioset(self.dropout(z))


def loss(model: nn.Module, log_mel, scene, events) -> torch.Tensor:
    """L = L_scene + L_event; scenes (B,) by number."""
    scene_logits, event_logits = model(log_mel)
    return F.cross_entropy(scene_logits, scene) + F.mse_loss(event_logits.sigmoid(), events)


def device() -> str:
    """ "cuda" with PyTorch's fastest settings if JAX has a GPU too; else "cpu"."""
    if jax.default_backend() != "gpu" or not torch.cuda.is_available():
        return "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # as JAX's default
    return "cuda"


def _encoder(config) -> dict:
    encoder = config.encoder
    return {x: getattr(encoder, x) for x in ("architecture", "width_divisor", "dropout")}


def load(model: ERGL | PANN, variables: dict) -> None:
    """Copies ergl_jax's variables into a model; both sides must match completely."""
    left = {}
    for tree in (variables["params"], variables["batch_stats"]):
        left |= {name: np.asarray(x) for name, x in flatten_dict(tree, sep="/").items()}
    state = {}

    def dense(name: str, *sources: str) -> None:
        kernels = [left.pop(f"{source}/kernel").T for source in sources]
        state[f"{name}.weight"] = np.concatenate(kernels)
        if f"{sources[0]}/bias" in left:
            state[f"{name}.bias"] = left.pop(f"{sources[0]}/bias")

    def norm(name: str, source: str) -> None:
        names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
        state.update({f"{name}.{ours}": left.pop(f"{source}/{x}") for ours, x in names.items()})

    norm("encoder.norm", "encoder/BatchNorm_0")
    for k, block in enumerate(model.encoder.blocks):
        for j in range(len(block.convs)):
            kernel = left.pop(f"encoder/ConvBlock_{k}/Conv_{j}/kernel")
            state[f"encoder.blocks.{k}.convs.{j}.weight"] = kernel.transpose(3, 2, 0, 1)
            source = f"encoder/ConvBlock_{k}/BatchNormReLU_{j}"
            norm(f"encoder.blocks.{k}.norms.{j}", source)
    if isinstance(model, PANN):
        dense("fc1", "fc1")
        dense("fc_audioset", "fc_audioset")
    else:
        dense("events.shared", "events/shared")
        kernel = left.pop("events/kernel")  # (n, D, C)
        state["events.each.weight"] = kernel.transpose(0, 2, 1).reshape(-1, kernel.shape[1])
        state["events.each.bias"] = left.pop("events/bias").reshape(-1)
        state["event_weight"] = left.pop("head/event_classifier/kernel")
        state["event_bias"] = left.pop("head/event_classifier/bias")
        for part in ("ncm", "nnm"):
            parts = [f"head/mel/{part}/_Projections_0/{x}" for x in ("query", "key", "value")]
            dense(f"mel.{part}", *parts)
        for u in range(len(model.gcn)):
            dense(f"gcn.{u}.nodes", *(f"head/gcn{u}/{x}" for x in "ABUV"))
            dense(f"gcn.{u}.edges", f"head/gcn{u}/C")
            norm(f"gcn.{u}.edge_norm", f"head/gcn{u}/BatchNormReLU_0")
            norm(f"gcn.{u}.node_norm", f"head/gcn{u}/BatchNormReLU_1")
        dense("scene", "head/scene")
    assert not left, f"not in PyTorch's model: {sorted(left)}"
    counts = {k: x for k, x in model.state_dict().items() if k.endswith("num_batches_tracked")}
    tensors = {k: torch.tensor(np.ascontiguousarray(x)) for k, x in state.items()}
    model.load_state_dict(tensors | counts)
