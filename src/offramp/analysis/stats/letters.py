"""Compact letter display: groups that share a letter were not shown to differ."""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence

ALPHABET = string.ascii_lowercase + string.ascii_uppercase


def letters(order: Sequence[str], different: Collection[frozenset[str]]) -> dict[str, str]:
    """Letters of each group; `a` goes to the first. order: labels.  different: pairs that differ.

    Insert and absorb (Piepho 2004, J. Comput. Graph. Stat. 13:456): begin with one column of all
    groups; for each pair that differs, split every column that holds both in two, one without either;
    drop columns that another one contains.
    """
    rank = {label: i for i, label in enumerate(order)}
    columns = [frozenset(order)]
    for pair in sorted(different, key=lambda pair: sorted(rank[label] for label in pair)):
        split: set[frozenset[str]] = set()
        for column in columns:
            split |= {column - {label} for label in pair} if pair <= column else {column}
        columns = [c for c in split if not any(c < other for other in split)]
    columns.sort(key=lambda column: sorted(rank[label] for label in column))
    names = [ALPHABET[i] if i < len(ALPHABET) else f"({i + 1})" for i in range(len(columns))]
    return {
        label: "".join(n for n, column in zip(names, columns, strict=True) if label in column)
        for label in order
    }
