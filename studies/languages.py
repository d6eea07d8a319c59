"""Which language is a name in? Names of countries and languages, by the bytes that they are written in.

The names are Unicode's (CLDR), of which the package Babel has those of some 900 places and languages in
each of these languages. A text is at most 32 bytes, a token is a byte, and 0 pads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from babel import Locale
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

LANGUAGES = ("da", "de", "en", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "sv")
LENGTH = 32
TEST = 5  # every fifth name


def data() -> dict[str, Any]:
    """Names that two languages share are left out; a name of one place is in one split in all
    languages."""
    names: dict[str, list[tuple[int, str]]] = {}
    for label, language in enumerate(LANGUAGES):
        locale = Locale(language)
        for kind, words in (("place", locale.territories), ("language", locale.languages)):
            for code, name in words.items():
                names.setdefault(name, []).append((label, f"{kind} {code}"))
    splits: dict[str, tuple[list[NDArray[np.int64]], list[int]]] = {"train": ([], []), "test": ([], [])}
    keys = sorted({key for uses in names.values() for _, key in uses})
    tests = set(keys[::TEST])
    for name, uses in sorted(names.items()):
        if len({label for label, _ in uses}) == 1 and len(name.encode()) <= LENGTH:
            label, key = uses[0]
            texts, labels = splits["test" if key in tests else "train"]
            texts.append(ids(name))
            labels.append(label)
    arrays = {split: (np.stack(texts), np.array(labels)) for split, (texts, labels) in splits.items()}
    return {**arrays, "classes": LANGUAGES}


def ids(text: str) -> NDArray[np.int64]:
    """[LENGTH] int64: a byte b is the token b + 1."""
    tokens = np.zeros(LENGTH, np.int64)
    written = np.frombuffer(text.encode()[:LENGTH], np.uint8)
    tokens[: len(written)] = written.astype(np.int64) + 1
    return tokens


class Encoder(nn.Module):
    """A small BERT with random weights: ids [B, T] → logits [B, classes]."""

    def __init__(self, classes: int, layers: int, width: int) -> None:
        super().__init__()
        self.bert = BertForSequenceClassification(
            BertConfig(
                vocab_size=257,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=2 * width,
                max_position_embeddings=LENGTH,
                num_labels=classes,
            )
        )

    def forward(self, texts: Tensor) -> Tensor:
        logits: Tensor = self.bert(input_ids=texts, attention_mask=(texts != 0).long()).logits
        return logits


def encoder(classes: int, layers: int = 4, width: int = 96) -> nn.Module:
    """The study's backbone; with fewer layers or a smaller width, its controls."""
    return Encoder(classes, layers, width)


if __name__ == "__main__":
    for split, (texts, labels) in ((s, data()[s]) for s in ("train", "test")):
        print(f"{split}: {len(texts)} names, {torch.bincount(torch.tensor(labels)).tolist()}")
