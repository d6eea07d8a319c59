"""Multi-exit networks by their published definitions, small: what users bring to `adopt`.

MSDNet after Huang et al., *Multi-Scale Dense Networks for Resource Efficient Image Classification*
(ICLR 2018); RANet after Yang et al., *Resolution Adaptive Networks for Efficient Inference* (CVPR 2020);
BranchyNet after Teerapittayanon et al., *BranchyNet* (ICPR 2016); DeeBERT after Xin et al. (ACL 2020).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(into: int, out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    layer = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class ScaledDense(nn.Module):
    """A layer of MSDNet: each scale gets features of its own and of the finer scale's, concatenated to
    what it had."""

    def __init__(self, widths: list[int], growth: list[int], drop: bool) -> None:
        super().__init__()
        self.drop = drop
        first = 1 if drop else 0
        self.same, self.down = nn.ModuleList(), nn.ModuleList()
        for scale in range(first, len(widths)):
            half = growth[scale] if scale == 0 else growth[scale] // 2
            self.same.append(conv(widths[scale], half))
            self.down.append(nn.Identity() if scale == 0 else conv(widths[scale - 1], half, stride=2))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        first = 1 if self.drop else 0
        out = []
        for at, (same, down) in enumerate(zip(self.same, self.down, strict=True)):
            scale = at + first
            more = [same(x[scale])] if scale == 0 else [down(x[scale - 1]), same(x[scale])]
            out.append(torch.cat([x[scale], *more], dim=1))
        return out


class Classifier(nn.Module):
    """The classifier of MSDNet and RANet: two strided convolutions, a pool, a linear layer."""

    def __init__(self, into: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(into, 16, 2), conv(16, 16, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x))
        return self.linear(x.view(x.size(0), -1))  # type: ignore[no-any-return]


class MSDNet(nn.Module):
    """Three scales; exits read the coarsest. The finest scale is dropped after the second block."""

    def __init__(self, classes: int = 3, blocks: int = 3, layers: int = 2) -> None:
        super().__init__()
        growth, widths = [4, 8, 8], [8, 16, 16]
        self.first = nn.ModuleList([conv(3, 8), conv(8, 16, 2), conv(16, 16, 2)])
        self.blocks, self.classifier = nn.ModuleList(), nn.ModuleList()
        for block in range(blocks):
            steps = []
            for layer in range(layers):
                drop = block == blocks - 1 and layer == 0
                steps.append(ScaledDense(widths, growth, drop))
                first = 1 if drop else 0
                widths = [w + g for w, g in zip(widths[first:], growth[first:], strict=True)]
                growth = growth[first:]
                if drop:
                    break
            self.blocks.append(nn.Sequential(*steps))
            self.classifier.append(Classifier(widths[-1], classes))

    def forward(self, x: Tensor) -> list[Tensor]:
        scales = []
        for layer in self.first:
            x = layer(x)
            scales.append(x)
        answers = []
        for block, classifier in zip(self.blocks, self.classifier, strict=True):
            scales = block(scales)
            answers.append(classifier(scales[-1]))
        return answers


class RANet(nn.Module):
    """Two sub-networks, the coarse image first; the finer one fuses what the coarse one computed. Each
    has two exits."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stems = nn.ModuleList([conv(3, 8), conv(3, 8)])
        self.coarse = nn.ModuleList([conv(8, 8), conv(8, 8)])
        self.fine = nn.ModuleList([conv(8, 8), conv(16, 8)])
        self.fuse = nn.ModuleList([conv(8, 8), conv(8, 8)])
        self.classifier = nn.ModuleList(Classifier(n, classes) for n in (8, 8, 16, 16))

    def forward(self, x: Tensor) -> list[Tensor]:
        small = self.stems[0](F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False))
        features, answers = [], []
        for layer, classifier in zip(self.coarse, self.classifier[:2], strict=True):
            small = layer(small)
            features.append(small)
            answers.append(classifier(small))
        large = self.stems[1](x)
        for at, (layer, fuse) in enumerate(zip(self.fine, self.fuse, strict=True)):
            up = F.interpolate(fuse(features[at]), scale_factor=2.0, mode="nearest")
            large = torch.cat([layer(large), up], dim=1)
            answers.append(self.classifier[2 + at](large))
        return answers


class BranchyNet(nn.Module):
    """B-AlexNet in small, as many rewrite it: a dictionary, and heads that flatten."""

    def __init__(self, classes: int = 3, side: int = 16) -> None:
        super().__init__()
        self.features = nn.ModuleList([conv(3, 8, kernel=5), conv(8, 16), conv(16, 16)])
        self.pool = nn.MaxPool2d(2)
        half = side // 2
        self.branch = nn.Sequential(conv(8, 8), nn.Flatten(), nn.Linear(8 * half * half, classes))
        self.fc = nn.Sequential(nn.Linear(16 * (half // 2) ** 2, 32), nn.ReLU(), nn.Dropout(0.3))
        self.out = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pool(self.features[0](x))
        early = self.branch(x)
        x = self.features[2](self.pool(self.features[1](x)))
        return {"branch": early, "main": self.out(self.fc(x.flatten(1)))}


class TokenViT(nn.Module):
    """A small ViT with a head on the class token after every other block; returns a tuple."""

    def __init__(self, classes: int = 3, side: int = 16, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width) / 10)
        self.place = nn.Parameter(torch.randn(1, (side // 4) ** 2 + 1, width) / 10)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 64, 0.1, batch_first=True, norm_first=True)
            for _ in range(4)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.place
        answers = []
        for at, block in enumerate(self.blocks):
            x = block(x)
            if at % 2:
                answers.append(self.heads[at // 2](x[:, 0]))
        return tuple(answers)
