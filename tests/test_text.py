"""Texts as examples: from ids of tokens to a network that answers at its exits."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

import offramp
from offramp import Recipe
from offramp.augment import Augment
from offramp.data import from_dataset
from offramp.data.notes import notes
from offramp.inputs import blank, noise
from offramp.nets.cut.observe import count_macs
from offramp.nets.network import inside
from offramp.units import noun
from wording import refusal

LENGTH, VOCABULARY, CLASSES = 8, 20, 3
HEAD = {"kind": "linear", "tokens": "class"}
STUDY = Path(__file__).parents[1] / "studies" / "languages.py"


class Encoder(nn.Module):
    """Ids [B, T] → logits [B, classes]; padding is what is 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True) for _ in range(3)
        )
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x, padding = self.embed(ids), ids == 0
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        logits: Tensor = self.classifier(x[:, 0])
        return logits


def texts(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The first token tells the class of all but every tenth."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (count, LENGTH), generator=generator)
    ids[torch.arange(LENGTH) >= torch.randint(2, LENGTH + 1, (count, 1), generator=generator)] = 0
    labels = torch.arange(count) % CLASSES
    ids[:, 0] = labels + 1
    labels[::10] = (labels[::10] + 1) % CLASSES
    return ids, labels


@pytest.fixture(scope="module")
def net() -> offramp.ExitNetwork:
    return offramp.attach(Encoder(), exits=2, input_shape=(LENGTH,), head=HEAD)


def test_exits_lie_between_layers_and_the_mask_passes_them_by(net: offramp.ExitNetwork) -> None:
    assert net.places == ("layers.0", "layers.1", "layers.2")
    ids, _ = texts(16)
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(ids)[-1], Encoder().eval()(ids), rtol=0, atol=1e-6)
        padded = torch.cat([ids[:, :4], torch.zeros_like(ids[:, 4:])], 1)
        other = torch.cat([ids[:, :4], torch.full_like(ids[:, 4:], 5)], 1)
        assert not torch.allclose(net(padded)[0], net(other)[0])  # what is no padding counts


class Causal(nn.Module):
    """Whose tokens look at those before them alone, by a mask [T, T] that all layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(VOCABULARY, 8), nn.ModuleList()
        for _ in range(3):
            self.layers.append(nn.Linear(8, 8))
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        size = ids.shape[1]
        mask = torch.triu(torch.full((size, size), -1e9, device=ids.device), diagonal=1)
        x = self.embed(ids)
        for layer in self.layers:
            x = x + (layer(x) @ x.transpose(1, 2) + mask).softmax(-1) @ x
        logits: Tensor = self.classifier(x[:, -1])
        return logits


@pytest.mark.parametrize("count", [LENGTH, 2 * LENGTH + 1])  # as many texts as a text has tokens, too
def test_a_causal_mask_is_made_again_behind_an_exit(count: int) -> None:
    torch.manual_seed(0)
    net = offramp.attach(Causal(), ["add#2", "add#4"], (LENGTH,), head="linear").eval()
    ids, _ = texts(count)
    with torch.inference_mode():
        logits = net(ids)
        assert len(inside(net).segment(1)(ids)) == 1
        sure = logits[0].softmax(1).amax(1).sort().values
        for stay in (1, count // 2):
            policy = offramp.Policy(
                "confidence", (1, 3), (float(sure[stay - 1 : stay + 1].mean()), None)
            )
            answer = offramp.predictor(net, policy)(ids)
            expected = torch.where((answer.exits == 1)[:, None], logits[0], logits[2])
            assert int((answer.exits == 3).sum()) == stay
            torch.testing.assert_close(answer.logits, expected)


class Rotated(nn.Module):
    """Whose layers read a table that is computed of a buffer alone, as rotary embeddings are."""

    angles: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.classifier = nn.Linear(8, CLASSES)
        self.register_buffer("angles", torch.arange(8.0))

    def forward(self, ids: Tensor) -> Tensor:
        table = self.angles.cos()
        x = self.second(self.first(self.embed(ids)) * table) * table
        logits: Tensor = self.classifier(x.mean(1))
        return logits


def test_a_table_of_constants_bars_no_exit() -> None:
    net = offramp.attach(Rotated(), 1, (LENGTH,), head="linear").eval()
    ids, _ = texts(8)
    with torch.inference_mode():
        assert len(inside(net).segment(1)(ids)) == 1
        assert torch.equal(net(ids)[-1], net.backbone(ids))


def test_the_products_of_torchs_own_attention_are_counted() -> None:
    layer = nn.MultiheadAttention(64, 4, batch_first=True).eval()
    x = torch.randn(1, 32, 64)
    _, macs = count_macs(lambda: layer(x, x, x, need_weights=False))
    assert macs == 32 * 64 * 64 * 4 + 2 * 32 * 32 * 64  # four projections; scores, and what they weigh
    assert torch.backends.mha.get_fastpath_enabled()  # as it was


def test_fitted_it_answers_and_saves(
    net: offramp.ExitNetwork, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    recipe = Recipe(epochs=4, batch_size=32, learning_rate=0.1)
    store, limit = tmp_path / "store", {"max_accuracy_loss": 0.1, "anyway": True}
    fitted = offramp.fit(net, "two-stage", train=texts(600), recipe=recipe, store=store)
    assert min(fitted.accuracy.values()) > 0.8
    policy = fitted.calibrate(**limit)
    report = " ".join(repr(offramp.calibrate(fitted.trial, store, out=None, **limit)).split())
    assert "calibration texts" in report and "MACs a text" in report and "image" not in report
    ids, labels = texts(64, seed=1)
    answers = fitted.predict(ids, policy)
    assert (answers.classes == labels).float().mean() > 0.8
    assert torch.equal(answers.exits - 1, policy.leaves(torch.stack(fitted.net(ids), 1)))
    assert refusal(fitted.predict, ids.to(torch.int32), policy) == snapshot
    assert refusal(fitted.export, tmp_path / "bundle", policy, anyway=True) == snapshot
    assert not (tmp_path / "bundle").exists()


def test_what_is_for_images_alone_is_refused(snapshot: SnapshotAssertion) -> None:
    ids, labels = texts(60)
    assert refusal(from_dataset, (ids, labels), augment=Augment(flip=True)) == snapshot
    assert refusal(from_dataset, (ids - 1, labels)) == snapshot
    assert refusal(from_dataset, (ids, labels), normalize="imagenet") == snapshot


@pytest.mark.parametrize("name", ["digits-cnn", "timm/resnet18", "torchvision/resnet18"])
def test_a_backbone_by_name_takes_no_texts(name: str) -> None:
    message = refusal(offramp.attach, name, 2, (LENGTH,), CLASSES)
    assert f"backbone '{name}' takes images, and these are texts" in message


def test_a_dataset_of_texts_reads_as_arrays_do() -> None:
    ids, labels = texts(60)
    arrays = from_dataset((ids, labels))
    other = from_dataset([(row, int(label)) for row, label in zip(ids, labels, strict=True)])
    third = from_dataset((ids.to(torch.int32).numpy(), labels.numpy()))
    assert arrays.shape == other.shape == (LENGTH,) and arrays.mean == arrays.std == ()
    for data in (other, third):
        assert all(data.splits[n].digest == s.digest for n, s in arrays.splits.items())
        assert data.splits.keys() == arrays.splits.keys()


def test_what_is_said_of_data_calls_texts_texts(snapshot: SnapshotAssertion) -> None:
    """And tells of equal ones with unlike labels, of which nobody was told."""
    ids, labels = texts(600)
    ids[550] = ids[5] = ids[3]
    labels[3], labels[5] = 0, 1
    data = from_dataset((ids, labels), test=(ids[:60], labels[:60]))
    assert notes(data.provenance, noun(data.shape)) == snapshot


def test_texts_of_several_lengths_are_to_be_padded(snapshot: SnapshotAssertion) -> None:
    ids, labels = texts(60)
    ragged = [(row[: LENGTH - i % 2], int(labels[i])) for i, row in enumerate(ids)]
    assert refusal(from_dataset, ragged) == snapshot


def test_ids_beyond_the_vocabulary_are_told_before_anything_trains(
    net: offramp.ExitNetwork, snapshot: SnapshotAssertion
) -> None:
    ids, labels = texts(600)
    ids[7, 1] = VOCABULARY
    assert refusal(offramp.fit, net, "joint", train=(ids, labels)) == snapshot
    assert refusal(offramp.adopt, net, calibration=(ids, labels)) == snapshot
    assert (
        refusal(offramp.predictor(net.eval(), offramp.Policy("fixed", (3,), (None,))), ids[:9])
        == snapshot
    )
    with offramp.program(net, "joint")[0] as phase:
        assert refusal(phase.module, ids[:9], labels[:9]) == snapshot
    ids[7, 1] -= 1
    assert not offramp.adopt(net, calibration=(ids, labels)).net.training


def test_examples_that_mean_nothing() -> None:
    ids = noise((LENGTH,), 5)
    assert ids.dtype == torch.int64 and ids[:, 0].eq(1).all() and set(ids.unique().tolist()) == {0, 1}
    assert blank((LENGTH,), 2, torch.empty(0)).eq(1).all()  # nothing is padded
    assert noise((3, 4, 4), 5).shape == blank((3, 4, 4), 5, torch.empty(0)).shape == (5, 3, 4, 4)


def study() -> ModuleType:
    """The module of studies/languages.py."""
    spec = importlib.util.spec_from_file_location("languages", STUDY)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["languages"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_a_bert_of_transformers_is_cut_between_its_layers() -> None:
    languages = study()
    module = languages.encoder(5).eval()
    net = offramp.attach(module, exits=3, input_shape=(languages.LENGTH,), head=HEAD).eval()
    assert [place.rpartition(".")[2] for place in net.places[:3]] == ["0", "1", "2"]
    ids = torch.from_numpy(
        np.stack([languages.ids(text) for text in ("Norwegen", "Île-de-France", "x")])
    )
    with torch.inference_mode():
        assert torch.equal(net(ids)[-1], module(ids))


def test_no_place_is_in_two_splits_of_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its data alone: transformers, which makes its network, takes half a minute to import."""
    network = SimpleNamespace(BertConfig=None, BertForSequenceClassification=None)
    monkeypatch.setitem(sys.modules, "transformers", network)  # type: ignore[arg-type]
    languages = study()
    data = languages.data()
    train, test = ({tuple(row) for row in data[split][0].tolist()} for split in ("train", "test"))
    assert len(train) > 4000 and len(test) > 1000 and not train & test
    assert len(set(data["train"][1].tolist())) == len(languages.LANGUAGES)
