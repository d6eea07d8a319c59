"""Write docs/backbones.md: what becomes of many architectures with exits: python -m benchmarks.backbones

    python -m benchmarks.backbones                    # all of them; minutes
    python -m benchmarks.backbones timm/convnext_atto # one, shown and not written
    python -m benchmarks.backbones --quick            # without graphs

Each has random weights and small images. Its exits are those that nobody chose.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from offramp.bundle import graphs, parity
from offramp.errors import OfframpError
from offramp.files import replacing
from offramp.nets import ExitNetwork, NetSpec, build, list_places
from offramp.nets.backbones.lookup import origin_of
from offramp.nets.network import inside
from offramp.parts import Part, Taps, path

PAGE = Path(__file__).parents[1] / "docs" / "backbones.md"
BRANCHING = Path(__file__).with_name("branching.py")
CLASSES = 5
COUNT = 3  # images; neither a batch that is traced nor one that is exported
NORM, RATE = 1.0, 0.01  # of the step: few images on small maps have gradients that would end it


@dataclass(frozen=True)
class Case:
    """name: of the network, as a study has it.  side: of its images, pixels; the smallest that it takes,
    or near to it.  taps: as in `NetSpec`; None leaves them to offramp."""

    family: str
    name: str
    side: int
    taps: Taps = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.side, self.side

    @property
    def spec(self) -> NetSpec:
        return NetSpec(self.name, taps=self.taps)


@dataclass(frozen=True)
class Row:
    """What became of a case.

    Attributes:
        seconds: Of processor time.
        places: How many there are for exits.
        exits: Those that were chosen, with the share of the MACs up to them, 0 to 1, and the kind of
            their heads.
        equal: Whether the final exit answers as the plain network, to the bit, before and after a step.
        trains: Whether every weight had a finite gradient in it.
        gap: The largest difference of a logit in ONNX Runtime.
        bound: What the gap may be.
        refused: Why it has no exits.
        kept: Why it is no bundle.
    """

    case: Case
    seconds: float = 0.0
    places: int = 0
    exits: tuple[tuple[str, float, str], ...] = ()
    equal: bool = False
    trains: bool = False
    gap: float | None = None
    bound: float = 0.0
    refused: str = ""
    kept: str = ""


CASES = (
    Case("ViT", "timm/vit_tiny_patch16_224", 32),
    Case("DeiT", "timm/deit_tiny_distilled_patch16_224", 32),
    Case("EVA", "timm/eva02_tiny_patch14_224", 28),
    Case("XCiT", "timm/xcit_nano_12_p16_224", 32),
    Case("Swin", "timm/swin_tiny_patch4_window7_224", 56),
    Case("PVT", "timm/pvt_v2_b0", 32),
    Case("CoaT", "timm/coat_lite_tiny", 64),
    Case("CrossViT", "timm/crossvit_9_240", 240),
    Case("MobileViT", "timm/mobilevit_xxs", 64),
    Case("MobileViT", "timm/mobilevitv2_050", 64),
    Case("EfficientViT", "timm/efficientvit_b0", 64),
    Case("EdgeNeXt", "timm/edgenext_xx_small", 64),
    Case("FastViT", "timm/fastvit_t8", 64),
    Case("PoolFormer", "timm/poolformer_s12", 32),
    Case("MambaOut", "timm/mambaout_femto", 64),
    Case("MLP-Mixer", "timm/mixer_s32_224", 64),
    Case("ResMLP", "timm/resmlp_12_224", 32),
    Case("ConvNeXt", "timm/convnext_atto", 32),
    Case("ConvNeXt", "timm/convnextv2_atto", 32),
    Case("EfficientNet", "timm/efficientnet_b0", 64),
    Case("MobileNet", "timm/mobilenetv3_small_050", 64),
    Case("MobileNet", "timm/mobilenetv4_conv_small_035", 64),
    Case("MobileNet", "torchvision/mobilenet_v3_small", 64),
    Case("MNASNet", "torchvision/mnasnet0_5", 64),
    Case("GhostNet", "timm/ghostnet_050", 64),
    Case("ShuffleNet", "torchvision/shufflenet_v2_x0_5", 64),
    Case("SqueezeNet", "torchvision/squeezenet1_1", 64),
    Case("StarNet", "timm/starnet_s050", 64),
    Case("RegNet", "timm/regnety_002", 32),
    Case("ResNeXt", "timm/resnext26ts", 32),
    Case("RepVGG", "timm/repvgg_a0", 32),
    Case("DenseNet", "torchvision/densenet121", 32),
    Case("by hand", f"{BRANCHING}:by_size", 32),
    Case("by hand", f"{BRANCHING}:by_value", 32),
    Case(
        "by hand",
        f"{BRANCHING}:by_value",
        32,
        (("stem",), ("sharpen", "middle"), ("last",), ("pool", "fc")),
    ),
)


def tried(case: Case, bundle: bool = True) -> Row:
    """Gives a network exits, exports it, trains it one step. bundle: whether to export."""
    began = time.process_time()
    try:
        places, _ = list_places(case.spec, case.shape, CLASSES)
        net = build(case.spec, case.shape, CLASSES, seed=0)
    except OfframpError as error:
        return Row(case, time.process_time() - began, refused=str(error))
    images = pictures(case.shape)
    fresh = same(net, plain(case, net), images)
    gap, bound, refusal = None, 0.0, ""
    if bundle:
        try:
            gap, bound = exported(net, images)
        except OfframpError as error:
            refusal = str(error)
    trains = step(net, images)
    equal = fresh and same(net, plain(case, net), images)
    return Row(
        case,
        time.process_time() - began,
        places=len(places),
        exits=exits(net),
        equal=equal,
        trains=trains,
        gap=gap,
        bound=bound,
        kept=refusal,
    )


def pictures(shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(COUNT, *shape, generator=torch.Generator().manual_seed(1))


def exits(net: ExitNetwork) -> tuple[tuple[str, float, str], ...]:
    spent = list(accumulate(net.macs(part) for part in path(net.exits)))
    kinds = [spec.kind for spec in inside(net).head_specs]
    return tuple((p, s / spent[-1], k) for p, s, k in zip(net.places, spent, kinds, strict=False))


def plain(case: Case, net: ExitNetwork) -> nn.Module:
    """The network as its library makes it, never traced, with the weights that `net` has now."""
    make = origin_of(case.spec, case.shape, CLASSES).make
    assert make is not None
    module = make()
    module.load_state_dict(net.backbone.state_dict())
    return module


def same(net: ExitNetwork, module: nn.Module, images: Tensor) -> bool:
    """Whether the final exit answers as the module, to the bit, in eval mode."""
    with torch.inference_mode():
        answers, expected = net.eval()(images)[-1], module.eval()(images)
    return bool(answers.isfinite().all()) and torch.equal(answers, expected)


def step(net: ExitNetwork, images: Tensor) -> bool:
    """One step of SGD on the sum of all exits' losses. Whether it reached every weight."""
    net.train()
    parts = [*path(net.exits), *(Part("head", k) for k in range(1, net.exits))]
    weights = [p for part in parts for p in inside(net).parameters_of(part)]
    labels = torch.arange(COUNT) % CLASSES
    sum(nn.functional.cross_entropy(logits, labels) for logits in net(images)).backward()
    reached = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in weights)
    nn.utils.clip_grad_norm_(weights, NORM)
    torch.optim.SGD(weights, lr=RATE).step()
    net.zero_grad()
    return reached


def exported(net: ExitNetwork, images: Tensor) -> tuple[float, float]:
    """The largest difference of a logit between the stages in ONNX Runtime and the network, and what it
    may be in a bundle. Raises OfframpError where the stages cannot be graphs."""
    import onnxruntime  # an extra

    with torch.inference_mode():
        expected = [logits.numpy() for logits in net.eval()(images)]
    stages = graphs.layout(inside(net).trunk_of, range(1, net.exits + 1))
    tensors: dict[int | None, list[np.ndarray]] = {None: [images.numpy()]}
    gaps = []
    with tempfile.TemporaryDirectory(prefix="offramp-") as folder:
        for at, stage in enumerate(graphs.export(net, stages, Path(folder))):
            run = onnxruntime.InferenceSession(Path(folder, stage.file))
            names = [entry.name for entry in run.get_inputs()]
            logits, *tensors[at] = run.run(None, dict(zip(names, tensors[stage.after], strict=True)))
            gaps.append(float(np.abs(logits - expected[stage.exit - 1]).max()))
    return max(gaps), parity.TOLERANCE + parity.RELATIVE * float(np.abs(expected).max())


def row(result: Row) -> str:
    """A line of the table."""
    case = result.case
    name = case.name.rpartition("/")[2] if case.name.startswith("/") else case.name
    first = f"| {case.family} | `{name}` | {case.side} |"
    if result.refused:
        return f"{first} – | {short(result.refused)} | – | – | – | {result.seconds:.0f} |"
    places = "; ".join(f"`{p}` {100 * share:.0f} %, {kind}" for p, share, kind in result.exits)
    onnx = f"{result.gap:.0e}" if result.gap is not None else short(result.kept)
    answers, trains = ("yes" if good else "**no**" for good in (result.equal, result.trains))
    return f"{first} {result.places} | {places} | {answers} | {trains} | {onnx} | {result.seconds:.0f} |"


def short(reason: str) -> str:
    """A refusal in a cell: without the folder of this file, in one line; none was not tried."""
    if not reason:
        return "–"
    return "refused: " + " ".join(reason.replace(f"{BRANCHING.parent}/", "").replace("|", "\\|").split())


def page(rows: Iterable[Row]) -> str:
    return HEAD + "".join(f"{row(result)}\n" for result in rows)


HEAD = """\
# Backbones

Which networks can get exits? This page tries architectures of timm and torchvision, and two written \
by hand (`benchmarks/branching.py`). Weights are random. Images have the smallest size that the \
network takes, or nearly that. `python -m benchmarks.backbones` writes this page, and \
`make test-slow` checks every row.

- **Places**: the number of places for an exit. **Exits**: the default ones, which `offramp taps NAME` \
marks with a star, each with its share of the multiply-accumulates and the kind of its head.
- **Final exit**: are its logits those of the plain network, bit for bit, in eval mode, before and \
after a step of training?
- **Trains**: does every weight have a finite gradient after one step on all exits?
- **ONNX**: the largest difference of a logit between ONNX Runtime and PyTorch. A dash: no graphs \
were made (`--quick`).
- **Seconds**: processor time for all of that.

If something is impossible, the cell has the refusal with its reason.

| family | network | pixels | places | exits | final exit | trains | ONNX | seconds |
|---|---|--:|--:|---|---|---|---|--:|
"""


def main() -> None:
    warnings.simplefilter("ignore")
    bundle = "--quick" not in sys.argv
    names = [word for word in sys.argv[1:] if word != "--quick"]
    rows = []
    for case in CASES:
        if not names or case.name in names:
            rows.append(tried(case, bundle))
            print(row(rows[-1]), flush=True)
    if not names:
        with replacing(PAGE) as temporary:
            temporary.write_text(page(rows))


if __name__ == "__main__":
    main()
