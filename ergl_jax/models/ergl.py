"""ERGL: event-relational graph representation learning (arXiv 2210.15366, §2).

log-mel -> encoder -> tokens of each event -> nodes, edges -> graph convolutions -> scene

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels, n events, C channels of
nodes and edges, U graph convolutions. A token is what an event has at one encoder frame (T tokens)
or in the whole clip (one).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.edges import EdgeLearning
from ergl_jax.models.events import EventClassifier, EventEmbeddings, pool_tokens
from ergl_jax.models.gated_gcn import GatedGCNLayer
from ergl_jax.models.layers import small_uniform
from ergl_jax.models.output import Graph, Output
from ergl_jax.models.panns import Encoder


class ERGL(nn.Module):
    """The scene of a clip from the graph of its audio events (§2).

    Attributes:
      num_scenes, num_events: how many classes; num_events is n.
      encoder: the convolutional encoder of §2.1.
      channels: C.
      tokens: "frame" or "clip"; see `EventEmbeddings`.
      mel: False is the paper's ablation: all edges enter the graph convolutions as zeros.
      gcn_layers: U.
      gate: "sigmoid" or "softmax"; see `GatedGCNLayer`.
      dropout: before the shared layer of the embeddings and before the scene layer.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: of the computation; parameters, softmax and logits are float32.
    """

    num_scenes: int
    num_events: int
    encoder: Encoder
    channels: int = 64
    tokens: str = "frame"
    mel: bool = True
    gcn_layers: int = 2
    gate: str = "sigmoid"
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with its Graph."""
        h = self.encoder(log_mel, train=train)  # §2.1: (B, T, D)
        v = EventEmbeddings(
            self.num_events, self.channels, self.tokens, self.dropout, self.dtype, name="events"
        )(h, train=train)  # §2.1: (B, n, T, C)
        head = GraphHead(self.make_readout(), self.mel, self.dtype, name="head")
        return head(v, train=train)  # §2.1 to 2.3

    def read(self, nodes: jax.Array, edges: jax.Array) -> jax.Array:
        """The scene logits (B, scenes) of another graph, v_i (B, n, C) and e_ij (B, n, n, C)."""
        head = {name: tree["head"] for name, tree in self.variables.items()}
        return self.make_readout().apply(head, nodes, edges, train=False)[0]

    @nn.nowrap
    def make_readout(self) -> GraphReadout:
        """The head's readout as a module of its own, which takes the head's variables."""
        return GraphReadout(
            num_scenes=self.num_scenes,
            gcn_layers=self.gcn_layers,
            gate=self.gate,
            dropout=self.dropout,
            axis_name=self.axis_name,
            dtype=self.dtype,
            parent=None,
        )


class GraphHead(nn.Module):
    """Nodes, events and edges from the event tokens, and the scene from their graph (§2.1 to 2.3).

    Attributes:
      readout: its parameters are the head's own, so it can read a graph by itself with those.
      mel, dtype: as of `ERGL`.
    """

    readout: GraphReadout
    mel: bool = True
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.event_classifier = EventClassifier()
        if self.mel:
            self.edge_learning = EdgeLearning(self.dtype, name="mel")
        nn.share_scope(self, self.readout)

    def __call__(self, v: jax.Array, *, train: bool) -> Output:
        """Tokens v_{i,t} (B, n, T, C) -> Output with its Graph."""
        nodes_in = pool_tokens(v)  # §2.1, v_i: (B, n, C)
        event_logits = self.event_classifier(nodes_in)  # §2.1: (B, n)
        by_token = self.event_classifier(v.swapaxes(1, 2))  # (B, T, n)
        if self.mel:
            edges_in = self.edge_learning(v)  # §2.2, eq. 1 to 4, e_ij: (B, n, n, C)
        else:
            batch, n, channels = nodes_in.shape
            edges_in = jnp.zeros((batch, n, n, channels), v.dtype)
        scene_logits, nodes, edges, gates = self.readout(nodes_in, edges_in, train=train)  # §2.3
        graph = Graph(nodes_in, edges_in, v, nodes, edges, gates)
        return Output(scene_logits, event_logits, graph, event_logits_by_frame=by_token)


class GraphReadout(nn.Module):
    """The scene of a graph: U graph convolutions, then the scene layer (§2.3).

    Attributes: as of `ERGL`.
    """

    num_scenes: int
    gcn_layers: int = 2
    gate: str = "sigmoid"
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, nodes: jax.Array, edges: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """v_i (B, n, C), e_ij (B, n, n, C) -> scene logits (B, scenes), nodes, edges, gates."""
        gates = []
        for layer in range(self.gcn_layers):
            gcn = GatedGCNLayer(self.gate, self.axis_name, self.dtype, name=f"gcn{layer}")
            nodes, edges, eta = gcn(nodes, edges, train=train)  # (B, n, C), 2 x (B, n, n, C)
            gates.append(eta)
        x = nodes.reshape(nodes.shape[0], -1).astype(jnp.float32)  # (B, n * C)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        scene_logits = nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(x)
        return scene_logits, nodes, edges, jnp.stack(gates)  # gates: (U, B, n, n, C)
