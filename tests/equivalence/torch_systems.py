"""The compared systems whose authors published code, as they describe them, in PyTorch's layers.

Images are (B, C, frequency, time) in DCASE2018 and MTL and (B, C, time, frequency) in the others,
as in that code; our layouts differ. Each system takes Flax variables, its width divisor and its mel
bins; it returns scene logits and, if it has them, event logits.
"""

import torch
import torch.nn.functional as F
from torch import nn


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


class System(nn.Module):
    def __init__(self, variables):
        super().__init__()
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def normalised(self, x):
        bands = self.stats["standardise"]
        return (x - tensor(bands["mean"])) / tensor(bands["deviation"])


class DCASE2018(System):
    def __init__(self, variables, divisor, rows):
        super().__init__(variables)
        params, stats = self.params, self.stats
        one, two = 32 // divisor, 64 // divisor
        self.convs = nn.ModuleList(
            [nn.Conv2d(1, one, 7, padding=3), nn.Conv2d(one, two, 7, padding=3)]
        )
        # A row of frequency is a channel of these.
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(r, eps=1e-3, momentum=0.01) for r in (rows, rows // 5)]
        )
        for i in range(2):
            load_conv(self.convs[i], params[f"Conv_{i}"], frequency_first=True)
            load_norm(self.norms[i], params[f"BatchNorm_{i}"], stats[f"BatchNorm_{i}"])
        self.dense = load_linear(params["dense"])
        self.scene = load_linear(params["scene"])

    def forward(self, x):
        x = self.normalised(x).mT[:, None]  # (B, 1, M, F)
        for conv, norm, pool in zip(self.convs, self.norms, ((5, 5), (4, 100)), strict=True):
            x = conv(x)
            x = F.relu(norm(x.transpose(1, 2)).transpose(1, 2))
            x = F.max_pool2d(x, (pool[0], min(pool[1], x.shape[3])))
        x = x.permute(0, 3, 2, 1).flatten(1)
        return (self.scene(F.relu(self.dense(x))),)


class Blocks(nn.Module):
    """Surrey's and ABCNN's."""

    def __init__(self, params, stats, divisor, side, convolutions):
        super().__init__()
        self.blocks, inputs = nn.ModuleList(), 1
        for block, channels in enumerate(c // divisor for c in (64, 128, 256, 512)):
            layers, name = [], f"ConvBlock_{block}"
            for k in range(convolutions):
                conv = nn.Conv2d(inputs, channels, side, padding=side // 2, bias=False)
                norm = nn.BatchNorm2d(channels)
                load_conv(conv, params[name][f"Conv_{k}"], frequency_first=False)
                known = f"BatchNormReLU_{k}"
                load_norm(norm, params[name][known], stats[name][known])
                layers += [conv, norm, nn.ReLU()]
                inputs = channels
            self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))

    def forward(self, x):
        x = x[:, None]
        for block in self.blocks:
            x = block(x)
        return x


class Surrey(System):
    def __init__(self, variables, divisor, rows):
        super().__init__(variables)
        params, stats = self.params, self.stats
        self.blocks = Blocks(params["blocks"], stats["blocks"], divisor, 3, 2)
        self.scene = load_linear(params["scene"])

    def forward(self, x):
        x = self.blocks(self.normalised(x))
        return (self.scene(F.max_pool2d(x, x.shape[2:])[:, :, 0, 0]),)


class ABCNN(System):
    def __init__(self, variables, divisor, rows):
        super().__init__(variables)
        params, stats = self.params, self.stats
        self.blocks = Blocks(params["blocks"], stats["blocks"], divisor, 5, 1)
        self.scene, self.attention = (
            load_linear(params[name], at_each_place=True) for name in ("scene", "attention")
        )

    def forward(self, x):
        x = self.blocks(self.normalised(x))
        attention = torch.clamp(torch.sigmoid(self.attention(x)) + 0.1, 0.1, 0.9).flatten(2)
        classes = F.log_softmax(self.scene(x), dim=1).flatten(2)
        return ((attention / attention.sum(2, keepdim=True) * classes).sum(2),)


class MTL(System):
    def __init__(self, variables, divisor, rows):
        super().__init__(variables)
        params, stats = self.params, self.stats
        narrow, wide = 128 // divisor, 256 // divisor
        widths = [1, narrow, narrow, narrow, wide, wide]
        places = [("backbone", k) for k in range(3)] + [("scene_head", k) for k in range(2)]
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for index, (part, k) in enumerate(places):
            conv = nn.Conv2d(widths[index], widths[index + 1], 3, padding=1)
            norm = nn.BatchNorm2d(widths[index + 1])
            p, s = params[part][f"PooledConv_{k}"], stats[part][f"PooledConv_{k}"]
            load_conv(conv, p["Conv_0"], frequency_first=True)
            load_norm(norm, p["BatchNormReLU_0"], s["BatchNormReLU_0"])
            self.convs.append(conv)
            self.norms.append(norm)
        self.rows = rows // 32
        self.gru = load_gru(params["gru"], self.rows, narrow)
        self.event_dense, self.events = (
            load_linear(params["event_dense"]),
            load_linear(params["events"]),
        )
        self.dense = load_linear(params["scene_head"]["dense"])
        self.scene = load_linear(params["scene_head"]["scene"])

    def forward(self, x):
        x = self.normalised(x).mT[:, None]  # (B, 1, M, F)
        for k, bins in enumerate((8, 2, 2)):
            x = F.max_pool2d(F.relu(self.norms[k](self.convs[k](x))), (bins, 1))
        frames = x.permute(3, 0, 1, 2).flatten(2)  # (F, B, C * M): channels before rows
        hidden = F.relu(self.event_dense(self.gru(frames)[0]))
        events = self.events(hidden).mean(dim=0)  # over the logits of frames
        for k, count in ((3, 25), (4, 20)):
            x = F.relu(self.norms[k](self.convs[k](x)))
            x = F.max_pool2d(x, (1, min(count, x.shape[3])))
        scene = self.scene(F.relu(self.dense(x.permute(0, 3, 2, 1).flatten(1))))
        return scene, events


def load_conv(layer, params, *, frequency_first):
    kernel = tensor(params["kernel"]).permute(3, 2, 0, 1)  # (out, in, time, frequency)
    layer.weight = nn.Parameter(kernel.mT.contiguous() if frequency_first else kernel.contiguous())
    if layer.bias is not None:
        layer.bias = nn.Parameter(tensor(params["bias"]))


def load_norm(layer, params, stats):
    layer.double()
    layer.weight, layer.bias = (nn.Parameter(tensor(params[k])) for k in ("scale", "bias"))
    layer.running_mean, layer.running_var = tensor(stats["mean"]), tensor(stats["var"])


def load_linear(params, *, at_each_place=False):
    """A Linear, or a 1x1 convolution."""
    kernel = tensor(params["kernel"]).T.contiguous()
    layer = nn.Linear(kernel.shape[1], kernel.shape[0])
    if at_each_place:
        layer, kernel = nn.Conv2d(kernel.shape[1], kernel.shape[0], 1), kernel[:, :, None, None]
    layer.weight, layer.bias = nn.Parameter(kernel), nn.Parameter(tensor(params["bias"]))
    return layer


def load_gru(params, rows, channels):
    """Both directions; our inputs are rows before channels."""
    units = params["GRUCell_0"]["hn"]["bias"].shape[0]
    layer = nn.GRU(rows * channels, units, bidirectional=True).double()
    for cell, ending in (("GRUCell_0", "l0"), ("GRUCell_1", "l0_reverse")):
        p = params[cell]
        inputs = [
            tensor(p[k]["kernel"]).reshape(rows, channels, units).permute(2, 1, 0).flatten(1)
            for k in ("ir", "iz", "in")
        ]
        hidden = [tensor(p[k]["kernel"]).T for k in ("hr", "hz", "hn")]
        none = torch.zeros(2 * units, dtype=torch.float64)
        for name, value in (
            ("weight_ih", torch.cat(inputs)),
            ("weight_hh", torch.cat(hidden)),
            ("bias_ih", torch.cat([tensor(p[k]["bias"]) for k in ("ir", "iz", "in")])),
            ("bias_hh", torch.cat([none, tensor(p["hn"]["bias"])])),
        ):
            setattr(layer, f"{name}_{ending}", nn.Parameter(value))
    return layer
