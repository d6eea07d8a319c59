"""Where exits go by themselves: spread over the MACs, apart, and where leaving spares something."""

import pytest
from torch import nn

from offramp.nets import NetSpec, attach, build
from offramp.nets.builder import list_places
from offramp.nets.cut.places import ExitPlace
from offramp.nets.cut.spread import choose, sensible, spread
from offramp.nets.network import inside
from offramp.parts import Part
from wording import refusal


def place(name: str, share: float, pooled: bool = False) -> ExitPlace:
    return ExitPlace(name, (), (8, 4, 4), round(share * 1000), share, 0, pooled)


def rows(**shares: float) -> list[ExitPlace]:
    return [place(name, share) for name, share in shares.items()]


def test_exits_spread_over_whole_blocks_near_their_shares():
    places = [
        place("conv", 0.1), place("bn", 0.1), place("a", 0.3), place("b.0", 0.4), place("b", 0.55),
        place("c.0", 0.65), place("c", 0.8), place("d.0.conv", 0.9),
    ]  # fmt: skip
    assert tuple(spread(places, 3)) == ("a", "b", "c")
    assert tuple(spread(places, 1)) == ("b",)
    assert tuple(spread(places, 0)) == ()
    assert tuple(spread(places[:3], 1)) == ("a",)


def test_exits_go_inside_blocks_when_whole_ones_are_too_far():
    assert tuple(spread([place("a.0", 0.3), place("a.1", 0.5), place("a", 0.9)], 1)) == ("a.1",)


def test_of_equal_macs_the_last_place_is_taken():
    assert tuple(spread(rows(conv=0.5, norm=0.5, relu=0.5, next=0.9), 1)) == ("relu",)


def test_as_many_exits_as_places(snapshot):
    places = rows(a=0.01, b=0.02, c=0.03)
    assert tuple(spread(places, 3)) == ("a", "b", "c")
    assert refusal(spread, places, 4) == snapshot
    assert refusal(spread, places, 10**9) == snapshot  # before there is a list of so many


DENSE = rows(stem=0.04, block1=0.407, transition1=0.443, block2=0.697, transition2=0.73, block3=0.97)


def test_exits_keep_a_distance(snapshot):
    """DenseNet-121's: three got 41, 44 and 73 %."""
    assert tuple(spread(DENSE, 3)) == ("stem", "transition1", "transition2")
    few = sensible(DENSE)
    assert [*few] == ["block1", "block2"] and few == snapshot  # none has to be at 4 % of the work
    close = sensible(rows(a=0.21, b=0.627, c=0.646, d=0.9))  # MobileViT's
    assert [*close] == ["a", "b", "d"] and close == snapshot


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([*rows(a=0.2, b=0.6, end=1.0), place("pool", 0.7, True)], ("a", "b")),
        (rows(a=0.5, end=1.0), ("a",)),
        (rows(end=1.0), ("end",)),  # there is nothing else
        ([place("hidden", 0.5, True)], ("hidden",)),  # a network that never has a map
    ],
)
def test_no_exit_is_where_leaving_spares_nothing_or_no_map_is_left(places, expected):
    assert tuple(sensible(places)) == expected


def test_a_share_means_the_place_nearest_to_it(snapshot):
    reasons = choose(DENSE, ("25%", "block2", "96 %"))
    assert [*reasons] == ["block1", "block2", "block3"] and reasons == snapshot
    assert refusal(choose, DENSE, ("72%", "73%")) == snapshot
    deep = [place("a", 0.2), place("a.b", 0.3)]
    assert list(choose(deep, ("24%",))) == ["a"] and list(choose(deep, ("29%",))) == ["a.b"]


def test_shares_attach():
    net = build(NetSpec("digits-cnn", taps=("25%", "blocks.3")), (1, 8, 8), 3, seed=0)
    assert net.places[:-1] == ("blocks.2", "blocks.3") and inside(net).facts.reasons[1] == "as asked"


def test_a_global_pooling_ends_the_places_for_exits():
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 64, 1), nn.Flatten()),
        nn.Sequential(nn.Linear(64, 512), nn.ReLU()),
        nn.Linear(512, 5),
    )
    assert attach(net, 1, (3, 8, 8)).places[0] == "0"


def wide(classes: int) -> nn.Module:
    """Its maps are large and its channels few, so that the paper's head costs more than all of it."""
    steps = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU()) for _ in range(6)]
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), *steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def test_a_head_that_we_choose_costs_no_more_than_it_spares():
    net = attach(wide(5), 2, (3, 32, 32))
    assert [spec.kind for spec in inside(net).head_specs] == ["mlp", "mlp"]
    assert all("head is mlp" in reason for reason in inside(net).facts.reasons)
    assert all(net.macs(Part("head", k)) <= net.macs(Part("segment", k + 1)) for k in (1, 2))
    named = attach(wide(5), list(net.places[:-1]), (3, 32, 32))
    assert [spec.kind for spec in inside(named).head_specs] == ["paper", "paper"]
    explicit = attach(wide(5), 2, (3, 32, 32), head={"kind": "paper"})
    assert [spec.kind for spec in inside(explicit).head_specs] == ["paper", "paper"]


def test_places_are_listed_with_the_taps_that_would_be_taken_and_why():
    listed, why = list_places(NetSpec("digits-cnn"), (1, 8, 8), 5)
    assert [*why] == ["blocks.0", "blocks.2", "blocks.4"]
    assert all("('blocks')" in reason for reason in why.values())
    assert [place.name for place in listed if place.name in why] == list(why)
    assert [place.share for place in listed] == sorted(place.share for place in listed)


FILE = """
from torch import nn
def make(classes):
    convs = [nn.Conv2d(3, 3, 3, padding=1) for _ in range({layers})]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(192, classes))
"""


def test_a_network_listed_as_one_segment_has_no_place(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(FILE.format(layers=1))
    chain = (("0",), ("1", "2"))
    assert list_places(NetSpec(f"{file}:make", taps=chain), (3, 8, 8), 5) == ((), {})


@pytest.mark.parametrize(("layers", "count"), [(1, 0), (2, 1), (3, 2)])
def test_what_is_there_is_listed_however_few(layers, count, tmp_path, snapshot):
    file = tmp_path / "net.py"
    file.write_text(FILE.format(layers=layers))
    listed, why = list_places(NetSpec(f"{file}:make"), (3, 8, 8), 5)
    assert len(listed) == count and len(why) == count
    if not count:
        assert refusal(build, NetSpec(f"{file}:make"), (3, 8, 8), 5, 0) == snapshot
