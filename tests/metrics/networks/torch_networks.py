"""PyTorch builds of the two feature networks, written apart from the Haiku ones (needs torch).

Layers bear the names of the weight files, so that loading a state dict strictly checks the names.
"""

import torch
import torch.nn.functional as F
from torch import nn


class ConvNorm(nn.Module):
    def __init__(self, channels_in, channels_out, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


def mean_pool(x):
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x):
    return F.max_pool2d(x, 3, stride=1, padding=1)


def shrink(x):
    return F.max_pool2d(x, 3, stride=2)


class Mixed(nn.Module):
    """Branches that are concatenated; each a list of layer names, the pool's one after the pool."""

    def __init__(self, layers, branches, pool):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, ConvNorm(*layer))
        self.branches, self.pool = branches, pool

    def forward(self, x):
        outputs = []
        for branch in self.branches:
            y = self.pool(x) if branch in ([], ["branch_pool"]) else x
            for name in branch:
                # A tuple forks: each of its layers sees the same input.
                if isinstance(name, tuple):
                    y = torch.cat([self.get_submodule(fork)(y) for fork in name], 1)
                else:
                    y = self.get_submodule(name)(y)
            outputs.append(y)
        return torch.cat(outputs, 1)


def mixed_5(c, pool):
    layers = {
        "branch1x1": (c, 64, 1),
        "branch5x5_1": (c, 48, 1),
        "branch5x5_2": (48, 64, 5, 1, 2),
        "branch3x3dbl_1": (c, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 1, 1),
        "branch_pool": (c, pool, 1),
    }
    branches = [
        ["branch1x1"],
        ["branch5x5_1", "branch5x5_2"],
        ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"],
        ["branch_pool"],
    ]
    return Mixed(layers, branches, mean_pool)


def mixed_6a(c):
    layers = {
        "branch3x3": (c, 384, 3, 2),
        "branch3x3dbl_1": (c, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 2),
    }
    branches = [["branch3x3"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"], []]
    return Mixed(layers, branches, shrink)


def mixed_6(m):
    row, column = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}

    def split(before, after, form):
        return (before, after, form["kernel"], 1, form["padding"])

    layers = {
        "branch1x1": (768, 192, 1),
        "branch7x7_1": (768, m, 1),
        "branch7x7_2": split(m, m, row),
        "branch7x7_3": split(m, 192, column),
        "branch7x7dbl_1": (768, m, 1),
        "branch7x7dbl_2": split(m, m, column),
        "branch7x7dbl_3": split(m, m, row),
        "branch7x7dbl_4": split(m, m, column),
        "branch7x7dbl_5": split(m, 192, row),
        "branch_pool": (768, 192, 1),
    }
    branches = [
        ["branch1x1"],
        [f"branch7x7_{i}" for i in (1, 2, 3)],
        [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)],
        ["branch_pool"],
    ]
    return Mixed(layers, branches, mean_pool)


def mixed_7a():
    layers = {
        "branch3x3_1": (768, 192, 1),
        "branch3x3_2": (192, 320, 3, 2),
        "branch7x7x3_1": (768, 192, 1),
        "branch7x7x3_2": (192, 192, (1, 7), 1, (0, 3)),
        "branch7x7x3_3": (192, 192, (7, 1), 1, (3, 0)),
        "branch7x7x3_4": (192, 192, 3, 2),
    }
    branches = [
        ["branch3x3_1", "branch3x3_2"],
        [f"branch7x7x3_{i}" for i in (1, 2, 3, 4)],
        [],
    ]
    return Mixed(layers, branches, shrink)


def mixed_7(c, pool):
    layers = {
        "branch1x1": (c, 320, 1),
        "branch3x3_1": (c, 384, 1),
        "branch3x3_2a": (384, 384, (1, 3), 1, (0, 1)),
        "branch3x3_2b": (384, 384, (3, 1), 1, (1, 0)),
        "branch3x3dbl_1": (c, 448, 1),
        "branch3x3dbl_2": (448, 384, 3, 1, 1),
        "branch3x3dbl_3a": (384, 384, (1, 3), 1, (0, 1)),
        "branch3x3dbl_3b": (384, 384, (3, 1), 1, (1, 0)),
        "branch_pool": (c, 192, 1),
    }
    branches = [
        ["branch1x1"],
        ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")],
        ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")],
        ["branch_pool"],
    ]
    return Mixed(layers, branches, pool)


class InceptionV3(nn.Module):
    """FID's variant; the forward pass returns every stage by name."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, 1, 1)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b, self.Mixed_5c = mixed_5(192, 32), mixed_5(256, 64)
        self.Mixed_5d = mixed_5(288, 64)
        self.Mixed_6a = mixed_6a(288)
        self.Mixed_6b, self.Mixed_6c = mixed_6(128), mixed_6(160)
        self.Mixed_6d, self.Mixed_6e = mixed_6(160), mixed_6(192)
        self.Mixed_7a = mixed_7a()
        self.Mixed_7b, self.Mixed_7c = mixed_7(1280, mean_pool), mixed_7(2048, max_pool)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        stages = {}
        for name, layer in self.named_children():
            if name == "fc":
                x = stages["features"] = x.mean((2, 3))
            x = layer(x)
            stages["logits" if name == "fc" else name] = x
        return stages


def same_padded(conv, x):
    """TensorFlow's padding: the output has ceil(size / stride) pixels, the odd one at the end."""
    (kernel, _), (stride, _), size = conv.kernel_size, conv.stride, x.shape[-1]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    return conv(F.pad(x, (before, after, before, after)))


class InvertedResidual(nn.Module):
    def __init__(self, channels_in, channels_out, kernel, stride, expansion):
        super().__init__()
        middle = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels_out
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(channels_in, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=1e-3)
        self._project_conv = nn.Conv2d(middle, channels_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(channels_out, eps=1e-3)

    def forward(self, inputs):
        x = inputs
        if self.expands:
            x = F.relu6(self._bn0(self._expand_conv(x)))
        x = F.relu6(self._bn1(same_padded(self._depthwise_conv, x)))
        x = self._bn2(self._project_conv(x))
        return x + inputs if self.residual else x


# channels in, channels out, kernel, stride, expansion
LITE0_BLOCKS = [
    (32, 16, 3, 1, 1),
    (16, 24, 3, 2, 6),
    (24, 24, 3, 1, 6),
    (24, 40, 5, 2, 6),
    (40, 40, 5, 1, 6),
    (40, 80, 3, 2, 6),
    (80, 80, 3, 1, 6),
    (80, 80, 3, 1, 6),
    (80, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 192, 5, 2, 6),
    (192, 192, 5, 1, 6),
    (192, 192, 5, 1, 6),
    (192, 192, 5, 1, 6),
    (192, 320, 3, 1, 6),
]


class EfficientNetLite0(nn.Module):
    """The forward pass returns every stage by name."""

    def __init__(self):
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList([InvertedResidual(*block) for block in LITE0_BLOCKS])
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x):
        x = F.relu6(self._bn0(same_padded(self._conv_stem, x)))
        stages = {"stem": x}
        for index, block in enumerate(self._blocks):
            x = stages[f"block_{index}"] = block(x)
        x = stages["head"] = F.relu6(self._bn1(self._conv_head(x)))
        stages["features"] = x.mean((2, 3))
        stages["logits"] = self._fc(stages["features"])
        return stages


def run(network, state_dict, images, size, centre, width):
    """Every stage of a network for uint8 images [num, height, width, 3], resized as pytorch-fid."""
    state = {name: torch.from_numpy(array) for name, array in state_dict.items()}
    missing = network.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    inputs = F.interpolate(inputs, (size, size), mode="bilinear", align_corners=False)
    with torch.no_grad():
        stages = network.eval()((inputs - centre) / width)
    return {
        name: (y.permute(0, 2, 3, 1) if y.ndim == 4 else y).numpy() for name, y in stages.items()
    }
