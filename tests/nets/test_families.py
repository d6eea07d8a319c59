"""Smaller members of the family of a network."""

from pathlib import Path
from typing import Any

import pytest

from offramp.nets import NetSpec, build
from offramp.nets.families import _family, has_smaller, nearest_to, smaller


def spec(name: str, weights: str | None = None, **options: Any) -> NetSpec:
    return NetSpec(name, tuple(options.items()), weights=weights)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (("resnet18", "resnet101", "resnet10t"), "resnet"),
        (("mobilenet_v2", "mobilenetv2_050", "mobilenetv2_110d"), "mobilenetv2"),
        (("mobilenet_v3_small", "mobilenet_v3_large"), "mobilenetv3"),
        (("vgg11_bn", "vgg16_bn"), "vggbn"),
        (("efficientnet_b0", "efficientnet_b7"), "efficientnetb"),
        (("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch32_384"), "vitpatch"),
        (("convnext_tiny", "convnext_atto", "convnext_xlarge"), "convnext"),
        (("regnet_y_400mf", "regnet_y_1_6gf"), "regnety"),
        (("wide_resnet50_2",), "wideresnet"),
    ],
)
def test_names_that_differ_in_size_alone_are_of_one_family(names: tuple[str, ...], family: str) -> None:
    assert {_family(name) for name in names} == {family}


def test_widths_of_a_registered_network() -> None:
    members = smaller(spec("airbench", width="medium"), (3, 32, 32), 10)
    widths = ["small", "slim", "tiny", "mini", "micro"]
    assert [dict(m.control) for m in members] == [{"width": width} for width in widths]
    for member in members:  # as the network itself counts them
        assert member.macs == build(member.spec, (3, 32, 32), 10, 0).plain_macs
    near = nearest_to(members, 11.2e6)
    assert dict(near.control) == {"width": "tiny"}
    assert not smaller(spec("airbench", width="micro"), (3, 32, 32), 10)


def test_other_depths_of_a_registered_network_keep_its_stem() -> None:
    (member,) = smaller(spec("resnet50", stem="small"), (3, 32, 32), 10)
    assert dict(member.control) == {"backbone": {"name": "resnet18", "stem": "small"}}


def test_a_function_that_takes_a_width(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "def make(classes, width=16, depth=2):\n"
        "    layers = nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(36 * width, classes)\n"
        "    return nn.Sequential(*layers)\n"
    )
    name = f"{file}:make"
    assert has_smaller(spec(name))
    assert [dict(m.control) for m in smaller(spec(name), (1, 8, 8), 3)] == [
        {"width": 12},
        {"width": 8},
        {"width": 4},
    ]


@pytest.mark.parametrize("name", ["digits-cnn", "resnet20", "timm/resnet18"])
def test_weights_of_ones_own_have_no_smaller_member(name: str) -> None:
    assert not has_smaller(spec(name, weights="mine.pth"))
    assert has_smaller(spec(name)) is (name == "timm/resnet18")
