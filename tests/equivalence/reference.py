"""The paper's equations in PyTorch, as naive as they stand: a loop for every "for each".

Nothing here knows JAX. Functions take a `Scope` of tensors that have the names and layouts of our
Flax variables, so gradients by them compare without conversion. Shapes: B clips, F frames, M mel
bins, T encoder frames (tokens), D encoder channels, n events, C channels.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

CHANNELS = {
    "cnn14": (64, 128, 256, 512, 1024, 2048),
    "cnn10": (64, 128, 256, 512),
    "cnn6": (64, 128, 256, 512),
}
# sample rate, window, its samples, hop, highest frequency
FRONT_ENDS = {
    "paper": (32000, "hamming", 1024, 320, 14000),
    "panns_16k": (16000, "hann", 512, 160, 8000),
    "panns_32k": (32000, "hann", 1024, 320, 14000),
    "panns_8k": (8000, "hann", 256, 80, 4000),
    "panns_wavegram": (32000, "hann", 1024, 320, 14000),
}


class Scope:
    """Tensors by "/"-separated names; `scope / "name"` looks below that name.

    `counts` collects how many values each BatchNorm averaged over, which PyTorch's unbiased
    variance depends on.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], prefix: str = "", counts=None):
        self.tensors, self.prefix = tensors, prefix
        self.counts = {} if counts is None else counts

    def __truediv__(self, name: str) -> "Scope":
        return Scope(self.tensors, f"{self.prefix}{name}/", self.counts)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors


def linear(p, x):
    return F.linear(x, p["kernel"].T, p["bias"] if "bias" in p else None)


def batch_norm(p, x, train):
    """Over the last axis; PyTorch's running statistics are updated in place."""
    rows = x.reshape(-1, x.shape[-1])
    p.counts[p.prefix] = len(rows)
    y = F.batch_norm(
        rows, p["mean"], p["var"], p["scale"], p["bias"], training=train, momentum=0.1, eps=1e-5
    )
    return y.reshape(x.shape)


# The encoders (PANNs, table 1)


def conv_block(p, x, *, train, convolutions=2, pool=True):
    """x (B, F, M, channels), as everything here; PyTorch convolves (B, channels, F, M)."""
    for j in range(convolutions):
        kernel = p[f"Conv_{j}/kernel"].permute(3, 2, 0, 1)
        x = F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=kernel.shape[-1] // 2)
        x = F.relu(batch_norm(p / f"BatchNormReLU_{j}", x.permute(0, 2, 3, 1), train))
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) if pool else x


def encoder(p, log_mel, *, train, architecture):
    """(B, F, M) -> (B, T, D)."""
    x = batch_norm(p / "BatchNorm_0", log_mel, train)[..., None]
    for k in range(len(CHANNELS[architecture])):
        x = conv_block(
            p / f"ConvBlock_{k}",
            x,
            train=train,
            convolutions=1 if architecture == "cnn6" else 2,
            pool=k < 5,  # Cnn14's sixth block alone has none
        )
    return x.mean(dim=2)


def tagger(p, log_mel, *, train, architecture):
    """Max plus mean over time, fc1 with ReLU, fc_audioset with sigmoid, as in PANNs."""
    h = encoder(p / "encoder", log_mel, train=train, architecture=architecture)
    embedding = F.relu(linear(p / "fc1", h.max(dim=1).values + h.mean(dim=1)))
    probabilities = torch.sigmoid(linear(p / "fc_audioset", embedding))
    return {"encoder": h, "embedding": embedding, "probabilities": probabilities}


# Events (§2.1)


def event_embeddings(p, h, *, tokens):
    """(B, T, D) -> (B, n, T, C), or (B, n, 1, C) with tokens="clip"."""
    if tokens == "frame":
        along = h.transpose(1, 2)
        z = F.max_pool1d(along, 3, stride=1, padding=1) + F.avg_pool1d(along, 3, 1, padding=1)
        z = z.transpose(1, 2)
    else:
        z = (h.max(dim=1).values + h.mean(dim=1))[:, None]
    g = F.relu(linear(p / "shared", z))
    events = zip(p["kernel"], p["bias"], strict=True)
    return torch.stack([F.relu(F.linear(g, w.T, b[0])) for w, b in events], dim=1)


def event_classifier(p, v):
    """(B, n, C) -> (B, n): p_i = sigmoid of w_i · v_i + b_i."""
    events = zip(v.unbind(1), p["kernel"], p["bias"], strict=True)
    return torch.stack([v_i @ w + b for v_i, w, b in events], dim=1)


# Edges (§2.2)


def attend(p, query, others):
    """softmax(query Wq (others Wk)' / sqrt(d_k)) others Wv; (T, C) each."""
    q, k, v = linear(p / "query", query), linear(p / "key", others), linear(p / "value", others)
    return torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), dim=-1) @ v


def ncm(p, v):
    """Eq. 1, 2: each event's tokens attend to the tokens of all events."""
    clips, events, _, channels = v.shape
    p = p / "_Projections_0"
    return torch.stack(
        [
            torch.stack([attend(p, v[b, i], v[b].reshape(-1, channels)) for i in range(events)])
            for b in range(clips)
        ]
    )


def nnm_gap(p, s):
    """Eq. 3, R_ij = NNM(S_j, S_i), and eq. 4, e_ij = GAP(R_ij), pair by pair."""
    p = p / "_Projections_0"
    clips, events = s.shape[:2]
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack([attend(p, s[b, j], s[b, i]).mean(dim=0) for j in range(events)])
                    for i in range(events)
                ]
            )
            for b in range(clips)
        ]
    )


# The graph (§2.3)


def gated_gcn(p, h, e, *, train, gate):
    """One layer, node by node and edge by edge: h (B, n, C), e (B, n, n, C) -> h', e', gates."""
    clips, n, _ = h.shape
    e_hat = torch.stack(
        [
            linear(p / "A", h[b, i]) + linear(p / "B", h[b, j]) + linear(p / "C", e[b, i, j])
            for b, i, j in np.ndindex(clips, n, n)
        ]
    ).reshape(e.shape)
    e_new = e + F.relu(batch_norm(p / "BatchNormReLU_0", e_hat, train))
    eta, nodes = [], []
    for b, i in np.ndindex(clips, n):
        if gate == "sigmoid":
            total = sum(torch.sigmoid(e_hat[b, i, j]) for j in range(n)) + 1e-6
            gates = [torch.sigmoid(e_hat[b, i, j]) / total for j in range(n)]
        else:  # ME-GraphAU's
            total = sum(torch.exp(torch.sigmoid(e_new[b, i, j])) for j in range(n))
            gates = [torch.exp(torch.sigmoid(e_new[b, i, j])) / total / n for j in range(n)]
        received = sum(gates[j] * linear(p / "V", h[b, j]) for j in range(n))
        nodes.append(linear(p / "U", h[b, i]) + received)
        eta.append(torch.stack(gates))
    nodes, eta = torch.stack(nodes).reshape(h.shape), torch.stack(eta).reshape(e.shape)
    return h + F.relu(batch_norm(p / "BatchNormReLU_1", nodes, train)), e_new, eta


def ergl(p, log_mel, *, train, architecture, tokens, mel, gate, gcn_layers):
    """The whole model, dropout off: everything it computes by name."""
    h = encoder(p / "encoder", log_mel, train=train, architecture=architecture)
    v = event_embeddings(p / "events", h, tokens=tokens)
    head = p / "head"
    nodes = nodes_in = (v.max(dim=2).values + v.mean(dim=2)) / 2
    if mel:
        edges_in = nnm_gap(head / "mel" / "nnm", ncm(head / "mel" / "ncm", v))
    else:
        clips, n, channels = nodes.shape
        edges_in = torch.zeros(clips, n, n, channels, dtype=v.dtype)
    edges, gates = edges_in, []
    for layer in range(gcn_layers):
        nodes, edges, eta = gated_gcn(head / f"gcn{layer}", nodes, edges, train=train, gate=gate)
        gates.append(eta)
    return {
        "encoder": h,
        "tokens": v,
        "nodes_in": nodes_in,
        "edges_in": edges_in,
        "nodes_out": nodes,
        "edges_out": edges,
        "gates": torch.stack(gates),
        "event_logits": event_classifier(head / "event_classifier", nodes_in),
        "scene_logits": linear(head / "scene", nodes.flatten(1)),
    }


def losses(outputs, *, scene, events):
    """L = L_event + L_scene; scene are target probabilities (B, scenes), events (B, n)."""
    scene_loss = F.cross_entropy(outputs["scene_logits"], scene)
    event_loss = F.mse_loss(torch.sigmoid(outputs["event_logits"]), events)
    return {
        "scene_loss": scene_loss,
        "event_loss": event_loss,
        "loss": scene_loss + event_loss,
    }
