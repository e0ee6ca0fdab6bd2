"""PANNs written in plain PyTorch, with the names of their published checkpoints: the oracle.

Imports PyTorch: a test that wants this calls pytest.importorskip("torch") first.
"""

import librosa
import numpy as np
import torch
from equivalence.reference import CHANNELS, FRONT_ENDS
from torch import nn
from torch.nn import functional

WAVEGRAM = "wavegram_logmel_cnn14"
RESNETS = {"resnet22": [2, 2, 2, 2], "resnet38": [3, 4, 6, 3]}


class STFT(nn.Module):
    """(B, L) -> power (B, F, K), by convolution with windowed cosines and sines."""

    def __init__(self, n_fft, hop, window):
        super().__init__()
        self.n_fft = n_fft
        bins = n_fft // 2 + 1
        self.conv_real = nn.Conv1d(1, bins, n_fft, stride=hop, bias=False)
        self.conv_imag = nn.Conv1d(1, bins, n_fft, stride=hop, bias=False)
        t = np.arange(n_fft)
        weight = {"hann": 0.5, "hamming": 0.54}[window]
        shape = weight - (1 - weight) * np.cos(2 * np.pi * t / n_fft)
        kernels = shape * np.exp(-2j * np.pi * np.outer(np.arange(bins), t) / n_fft)
        for conv, kernel in ((self.conv_real, kernels.real), (self.conv_imag, kernels.imag)):
            conv.weight.data = torch.tensor(kernel[:, None], dtype=torch.float32)

    def forward(self, x):
        half = self.n_fft // 2
        x = functional.pad(x[:, None], (half, half), mode="reflect")
        return (self.conv_real(x) ** 2 + self.conv_imag(x) ** 2).transpose(1, 2)


class Spectrogram(nn.Module):
    def __init__(self, *arguments):
        super().__init__()
        self.stft = STFT(*arguments)


class LogMel(nn.Module):
    """Power (B, F, K) -> dB (B, F, 64)."""

    def __init__(self, rate, n_fft, fmax):
        super().__init__()
        filters = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=64, fmin=50, fmax=fmax)
        self.melW = nn.Parameter(torch.tensor(filters.T.copy(), dtype=torch.float32))

    def forward(self, power):
        return 10 * torch.log10((power @ self.melW).clamp(min=1e-10))


class Block(nn.Module):
    def __init__(self, before, after, side, two):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, side, padding=side // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        if two:
            self.conv2 = nn.Conv2d(after, after, side, padding=side // 2, bias=False)
            self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x, pool):
        x = self.bn1(self.conv1(x)).relu()
        if hasattr(self, "conv2"):
            x = self.bn2(self.conv2(x)).relu()
        return functional.avg_pool2d(x, 2) if pool else x


class ResidualBlock(nn.Module):
    """A stage's first block has an average pool, but in the first stage, and a 1x1 convolution."""

    def __init__(self, before, after, pool):
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        if pool:
            convolution = nn.Conv2d(before, after, 1, bias=False)
            self.downsample = nn.Sequential(nn.AvgPool2d(2), convolution, nn.BatchNorm2d(after))

    def forward(self, x):
        y = functional.avg_pool2d(x, 2) if self.pool else x
        y = self.bn2(self.conv2(self.bn1(self.conv1(y)).relu()))
        return (y + (self.downsample(x) if self.pool else x)).relu()


class ResNet(nn.Module):
    def __init__(self, blocks, divisor):
        super().__init__()
        before = 64 // divisor
        for stage, number in enumerate(blocks):
            after = 64 * 2**stage // divisor
            first = ResidualBlock(before, after, pool=stage > 0)
            rest = [ResidualBlock(after, after, pool=False) for _ in range(number - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *rest))
            before = after

    def forward(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def mobilenet(divisor):
    """MobileNetV1, its strides as average pools between convolution and BatchNorm."""
    layers, before = [], 1
    strides = [2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    widths = [32, 64, 128, 128, 256, 256, *6 * [512], 1024, 1024]
    for stride, width in zip(strides, widths, strict=True):
        after, pool = width // divisor, nn.AvgPool2d(stride)
        if before == 1:
            first = nn.Conv2d(1, after, 3, padding=1, bias=False)
            parts = [first, pool, nn.BatchNorm2d(after), nn.ReLU()]
        else:
            depthwise = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False)
            pointwise = nn.Conv2d(before, after, 1, bias=False)
            parts = [depthwise, pool, nn.BatchNorm2d(before), nn.ReLU()]
            parts += [pointwise, nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.Sequential(*parts))
        before = after
    return nn.Sequential(*layers)


class WaveBlock(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv1 = nn.Conv1d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(after)
        self.conv2 = nn.Conv1d(after, after, 3, padding=2, dilation=2, bias=False)
        self.bn2 = nn.BatchNorm1d(after)

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return functional.max_pool1d(x, 4)


class Attention(nn.Module):
    """(B, D, T) -> probabilities (B, 527) and those of frames (B, 527, T)."""

    def __init__(self, channels):
        super().__init__()
        self.att = nn.Conv1d(channels, 527, 1)
        self.cla = nn.Conv1d(channels, 527, 1)
        self.bn_att = nn.BatchNorm1d(527)  # not used, but in every checkpoint

    def forward(self, x):
        weights = torch.softmax(self.att(x).clamp(-10, 10), dim=2)
        frames = self.cla(x).sigmoid()
        return (weights * frames).sum(dim=2), frames


class PANN(nn.Module):
    """Random weights of He's scale, and statistics that are nowhere 0 or 1.

    `variant`: "decision_level_max" or "decision_level_att" of those that locate events.
    """

    def __init__(
        self,
        architecture="cnn14",
        front_end="panns_16k",
        divisor=1,
        *,
        variant="",
        window=None,
        seed=0,
    ):
        super().__init__()
        rate, usual, n_fft, hop, fmax = FRONT_ENDS[front_end]
        self.spectrogram_extractor = Spectrogram(n_fft, hop, window or usual)
        self.logmel_extractor = LogMel(rate, n_fft, fmax)
        self.bn0 = nn.BatchNorm2d(64)
        self.architecture = architecture
        if architecture in RESNETS:
            self.conv_block1 = Block(1, 64 // divisor, 3, two=True)
            self.resnet = ResNet(RESNETS[architecture], divisor)
            before = 2048 // divisor
            self.conv_block_after1 = Block(512 // divisor, before, 3, two=True)
        elif architecture == "mobilenetv1":
            self.features, before = mobilenet(divisor), 1024 // divisor
        else:
            wavegram = architecture == WAVEGRAM
            self.channels = [x // divisor for x in CHANNELS["cnn14" if wavegram else architecture]]
            self.pools = 5 if len(self.channels) == 6 else 4
            side, two = (5, False) if architecture == "cnn6" else (3, True)
            before = 1
            for number, width in enumerate(self.channels, 1):
                setattr(self, f"conv_block{number}", Block(before, width, side, two))
                before = 2 * width if wavegram and number == 1 else width
            if wavegram:
                narrow = self.channels[0]
                self.pre_conv0 = nn.Conv1d(1, narrow, 11, stride=5, padding=5, bias=False)
                self.pre_bn0 = nn.BatchNorm1d(narrow)
                self.pre_block1 = WaveBlock(narrow, narrow)
                self.pre_block2 = WaveBlock(narrow, 2 * narrow)
                self.pre_block3 = WaveBlock(2 * narrow, 2 * narrow)
                self.pre_block4 = Block(2 * narrow // 32, narrow, 3, two=True)
        self.fc1 = nn.Linear(before, before)
        self.variant = variant
        if variant == "decision_level_att":
            self.att_block = Attention(before)
        else:
            self.fc_audioset = nn.Linear(before, 527)
        self.draw(torch.Generator().manual_seed(seed))
        self.eval()
        self.scale_logits(rate)

    @torch.no_grad()
    def draw(self, generator):
        fixed = set(self.spectrogram_extractor.modules())
        for module in (each for each in self.modules() if each not in fixed):
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                spread = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0, spread, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.5, generator=generator)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for x in (module.weight, module.running_var):
                    x.uniform_(0.5, 2, generator=generator)
                for x in (module.bias, module.running_mean):
                    x.normal_(0, 0.5, generator=generator)
        for module in self.modules():  # or else activations would grow from block to block
            if isinstance(module, ResidualBlock):
                module.bn2.weight *= 0.2
        self.bn0.running_mean.uniform_(-50, -30, generator=generator)  # as of dB
        self.bn0.running_var.uniform_(100, 400, generator=generator)

    @torch.no_grad()
    def scale_logits(self, rate):
        """Makes those of noise spread by 2: a sigmoid hides errors of large ones."""
        head = self.att_block.cla if self.variant == "decision_level_att" else self.fc_audioset
        seen = []
        hook = head.register_forward_hook(lambda _, __, logits: seen.append(logits))
        self(0.1 * torch.randn(1, rate // 2, generator=torch.Generator().manual_seed(0)))
        hook.remove()
        head.weight *= 2 / seen[0].std()

    @torch.no_grad()
    def forward(self, waveform):
        """(B, L) -> probabilities (B, 527), embedding (B, D), probabilities of frames (B, F, 527).

        The last are those of a variant that locates events; of others, None.
        """
        log_mel = self.logmel_extractor(self.spectrogram_extractor.stft(waveform))
        x = self.encode(log_mel, waveform).mean(dim=3)  # (B, D, T)
        if not self.variant:
            embedding = self.fc1(x.max(dim=2).values + x.mean(dim=2)).relu()
            return self.fc_audioset(embedding).sigmoid(), embedding, None
        x = functional.max_pool1d(x, 3, 1, 1) + functional.avg_pool1d(x, 3, 1, 1)
        x = self.fc1(x.transpose(1, 2)).relu()  # (B, T, D)
        if self.variant == "decision_level_att":
            clip, frames = self.att_block(x.transpose(1, 2))
            frames = frames.transpose(1, 2)  # (B, T, 527)
        else:
            frames = self.fc_audioset(x).sigmoid()
            clip = frames.max(dim=1).values
        repeated = frames.repeat_interleave(32, dim=1)
        rest = repeated[:, -1:].expand(-1, log_mel.shape[1] - repeated.shape[1], -1)
        return clip, x.mean(dim=1), torch.cat([repeated, rest], dim=1)

    def encode(self, log_mel, waveform):
        """(B, F, 64) and (B, L) -> (B, D, T, remaining bands)."""
        x = self.bn0(log_mel[:, None].transpose(1, 3)).transpose(1, 3)
        if self.architecture in RESNETS:
            x = functional.avg_pool2d(self.resnet(self.conv_block1(x, pool=True)), 2)
            return self.conv_block_after1(x, pool=False)
        if self.architecture == "mobilenetv1":
            return self.features(x)
        for number in range(len(self.channels)):
            x = getattr(self, f"conv_block{number + 1}")(x, pool=number < self.pools)
            if self.architecture == WAVEGRAM and number == 0:
                x = torch.cat([x, self.wavegram(waveform)], dim=1)
        return x

    def wavegram(self, waveform):
        """(B, L) -> (B, channels, L / 640, 32)."""
        x = self.pre_bn0(self.pre_conv0(waveform[:, None])).relu()
        x = self.pre_block3(self.pre_block2(self.pre_block1(x)))
        x = x.unflatten(1, (-1, 32)).transpose(2, 3)
        return functional.avg_pool2d(self.pre_block4(x, pool=False), (2, 1))


def checkpoint(model):
    """What PANNs' code saves: weights, and the sampler of its training."""
    rng = np.random.default_rng(0)
    sampler = {
        "indexes_per_class": [rng.permutation(9), rng.permutation(4).astype(np.int32)],
        "queue": [1, np.int64(2)],
        "pointers_of_classes": [0, 3],
        "names": np.array(["a", "b"]),
        "weights": np.float32(0.5),
        "state": {"position": rng.random(3), "mask": np.array([True, False])},
    }
    return {"iteration": 300000, "model": model.state_dict(), "sampler": sampler}


def save(model, path, *, legacy=False):
    """Writes the model as PANNs' code does, in PyTorch's zip format or the one before."""
    torch.save(checkpoint(model), path, _use_new_zipfile_serialization=not legacy)
    return path
