"""A finished trial: its manifest, its logits, and the network it describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from offramp import usercode
from offramp.data import Data
from offramp.data.dataset import FileSplit
from offramp.data_spec import HELD_OUT, SPLITS
from offramp.engine.fit import answers_of, split_logits
from offramp.engine.images import Images
from offramp.engine.resolve import Lineage, Source
from offramp.engine.weights import Weights
from offramp.errors import DataChanged, OfframpError
from offramp.hashing import canonical, plain
from offramp.metrics import accuracy, of_logits, uneven
from offramp.nets import ExitNetwork, HeadSpec, NetSpec, build
from offramp.nets.backbones.lookup import origin_of
from offramp.nets.cut.spread import is_chain
from offramp.nets.inside import drawn_module
from offramp.nets.network import exit_macs, identified, inside
from offramp.nets.own_exits import with_exits
from offramp.parts import Part, path
from offramp.recipe import ADOPTED
from offramp.store import manifest as stored
from offramp.store.provenance import provenance
from offramp.store.store import Damaged, Store
from offramp.study.plan.plan import Plan, Trial, net_spec
from offramp.study.spec.models import ALL, Study
from offramp.usercode import RecordedCode

EVALUATION_BATCH = 128


def damage(check: Callable[[str], object], name: str) -> Damaged | None:
    """What is wrong with a node or a trial; None where nothing is. check: reads every byte of it."""
    try:
        check(name)
    except Damaged as error:
        return error
    return None


def assemble(plan: Plan, trial: Trial, store: Store, device: torch.device) -> ExitNetwork:
    """The finished network of a trial whose nodes are in the store."""
    layout = plan.numerics.memory_format
    weights = Weights(plan.net, trial.seed, store.node_weights, device, layout)
    resolved = trial.resolved
    return weights.assembled(resolved.final, resolved.owners, resolved.carry)


LogitsByName = dict[tuple[int, int, Lineage, str], np.ndarray]  # by seed, exit, weights and split


def answered(trial: Trial) -> set[tuple[int, int, Lineage, str]]:
    """What a trial's logits are made of: one entry for each exit and split."""
    final = trial.resolved.final.items()
    return {(trial.seed, k, way, split) for k, way in final for split in HELD_OUT}


def write(plan: Plan, store: Store, trial: Trial, images: Images, answers: LogitsByName) -> None:
    """Assemble the trial's network, compute its logits on three splits, and write both. answers: logits
    [N, classes] that other trials have computed already; those of this one are added.

    Raises:
        DataChanged: As `check_unchanged`; nothing is written then.
    """
    net = assemble(plan, trial, store, images.device)
    exits = list(trial.resolved.final)
    arrays: dict[str, np.ndarray] = {}

    def computed(split: str, exits: Sequence[int], mirrored: bool) -> np.ndarray:
        images.ranks.send(["answer", trial.id, split, list(exits), mirrored])
        return split_logits(net, images, split, exits, EVALUATION_BATCH, mirrored)

    def flipped() -> dict[str, tuple[float, ...]]:
        mirrored = answers_of(net, computed("test", exits, True), exits)
        mean = (arrays["test"] + mirrored) / 2
        return {stored.FLIPPED: tuple(accuracy(mean, arrays["test_labels"]).tolist())}

    metrics: dict[str, stored.Metrics] = {}
    for split in HELD_OUT:
        labels = getattr(plan.data, split).labels.cpu().numpy()
        names = {k: (trial.seed, k, trial.resolved.final[k], split) for k in exits}
        new = [k for k in exits if names[k] not in answers]
        if new:
            logits = computed(split, new, False)
            answers |= {names[k]: logits[:, i] for i, k in enumerate(new)}
        own = np.stack([answers[names[k]] for k in exits], axis=1)
        logits = answers_of(net, own, exits)
        arrays[split], arrays[f"{split}_labels"] = logits, labels
        shares = plan.data.train if len(plan.data.train) else plan.data.calibration
        more = uneven(shares.labels.cpu().numpy(), len(plan.data.classes))
        metrics[split] = stored.Metrics.model_validate(
            of_logits(logits, labels, more)
            | (flipped() if split == "test" and plan.study.test_time_flip else {})
        )
    check_unchanged(plan.data, HELD_OUT, trial.id)
    store.write_trial(trial.id, _manifest(plan, trial, net, metrics), arrays)


def answer(
    plan: Plan,
    store: Store,
    images: Images,
    trial: str,
    split: str,
    exits: Sequence[int],
    mirrored: bool,
) -> None:
    """What `write` has the other ranks do: their part of a trial's logits."""
    (which,) = (each for each in plan.trials if each.id == trial)
    net = assemble(plan, which, store, images.device)
    split_logits(net, images, split, exits, EVALUATION_BATCH, mirrored)


def check_unchanged(data: Data, splits: Sequence[str], key: str) -> None:
    """Refuse image files that are read as they are needed, where they changed since keys were made. key:
    chooses the files that are read for that, a few hundred at most of a split (see
    `offramp.data.images.file_hashes.changed`).

    Raises:
        DataChanged: Naming a file that is no longer what the plan's keys were made of.
    """
    for split in {id(split): split for split in map(data.splits.get, splits)}.values():
        name = split.changed(key) if isinstance(split, FileSplit) else None
        if name is not None:
            raise DataChanged(
                f"{name} changed while it was trained on, so what was at work is not kept; run "
                "`offramp data check --fresh`, which names all that changed, then the same again"
            )


def planned(plan: Plan, trial: Trial) -> dict[str, Any]:
    """What a trial's manifest will say, as far as it is known before any phase is trained."""
    study, data = plan.study, plan.data
    return stored.TrialPlan(
        nodes=trial.keys,
        phases=_phases(trial),
        strategy=trial.label,
        seed=trial.seed,
        options=plain(trial.strategy.options),
        study=study.name,
        places=tuple(plan.net.places),
        backbone=study.backbone.name,
        data=stored.data_label(study.data.title or data.name, data.augment),
        recipe=_recipe(study),
    ).as_json()


def _phases(trial: Trial) -> tuple[stored.PhaseKey, ...]:
    return tuple(stored.PhaseKey(name=node.name, node=node.key) for node in trial.resolved.nodes)


def _recipe(study: Study) -> stored.RecipeRecord:
    return stored.RecipeRecord(**study.model_dump(mode="json", include={"recipe"})["recipe"])


def _manifest(
    plan: Plan, trial: Trial, net: ExitNetwork, metrics: dict[str, stored.Metrics]
) -> stored.Manifest:
    study, data = plan.study, plan.data
    exits = list(trial.resolved.final)
    final, augment = trial.resolved.final.items(), data.augment
    changed = {} if augment is None else plain(augment.changes)
    rare: dict[str, Any] = dict(_search(study, trial.label))
    if any(inside(net).gates):
        rare["gates"] = tuple(inside(net).gates[k - 1] for k in exits)
    return stored.Manifest(
        strategy=trial.label,
        program=trial.strategy.name,
        options=plain(trial.strategy.options),
        study=study.name,
        seed=trial.seed,
        asked=study.seeds,
        phases=_phases(trial),
        marginal=tuple(trial.marginal),
        exits=tuple(exits),
        places=tuple(net.places),
        final={str(k): tuple(stored.PartSource(**plain(source)) for source in way) for k, way in final},
        owners=tuple(trial.resolved.owners),
        carry=trial.resolved.carry,
        macs=tuple(exit_macs(net, exits[: i + 1]) for i in range(len(exits))),
        backbone_macs=net.plain_macs,
        part_macs=part_macs(net),
        parameters=tuple(_parameters(net, exits[: i + 1]) for i in range(len(exits))),
        metrics=metrics,
        network=stored.NetworkRecord(**plain(net_spec(study, data.shape))),
        initial=inside(net).facts.initial,
        input_shape=tuple(data.shape),
        classes=tuple(data.classes),
        mean=tuple(data.mean),
        std=tuple(data.std),
        data=stored.DataRecord(
            name=data.name,
            augment=None if augment is None else stored.Augmentation(**changed, label=str(augment)),
            spec=plain(study.data),
            provenance=stored.DataProvenance(**plain(data.provenance)),
            **{split: getattr(data, split).digest for split in SPLITS},
        ),
        recipe=_recipe(study),
        execution=stored.ExecutionRecord(**study.execution.model_dump(mode="json")),
        numerics=stored.NumericsRecord(**plain(plan.numerics)),
        provenance=provenance(next(net.parameters()).device),
        **rare,
    )


def _search(study: Study, label: str) -> dict[str, stored.SearchRecord]:
    """How the settings of a strategy were found, where they were."""
    search = study.search
    if search is None:
        return {}
    settings = plain(search.found.get(label, search.found.get(ALL, {})))
    record = stored.SearchRecord(over=search.over, trials=search.trials, per=search.per, found=settings)
    return {"search": record}


def part_macs(net: ExitNetwork) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """MACs of each segment, and of each exit's head."""
    numbers = range(1, net.exits + 1)
    segments = tuple(net.macs(Part("segment", i)) for i in numbers)
    return segments, tuple(net.macs(Part("head", i)) for i in numbers)


def _parameters(net: ExitNetwork, passed: Sequence[int]) -> int:
    """Parameters of the network that is cut off after the last of the exits `passed`."""
    own = inside(net)
    parts = {(own.trunk_of[k - 1], part) for k in passed for part in path(k)}
    return sum(own.parameter_count(part) for _, part in parts)


def recorded_code(store: Store, trial: str, data: bool = False) -> dict[str, RecordedCode]:
    """The code of somebody's own that rebuilding a trial's network would run, by its name
    (`net.py:make_net`); with `data`, that of its data too. Not trusted yet; nothing runs here."""
    manifest = store.read_trial(trial)
    code = {}
    if usercode.is_user_code(net := manifest.network.backbone):
        code[net] = RecordedCode(_identity(store, manifest).get("file"))
    source = (manifest.data.spec or {"name": manifest.data.name})["name"]
    if data and usercode.is_user_code(source):
        code[source] = data_code(manifest)
    return code


def data_code(manifest: stored.Manifest, trust_code: bool = False) -> RecordedCode:
    """What is recorded of the code that made a trial's data, if code did."""
    return RecordedCode(manifest.data.provenance.code_sha256, trust_code)


def _identity(store: Store, manifest: stored.Manifest) -> dict[str, Any]:
    """What was recorded of the network that a trial's phases trained."""
    return store.read_node(manifest.keys[0]).phase.network


def load_network(
    store: Store,
    trial: str,
    device: torch.device,
    attached: ExitNetwork | None = None,
    trust_code: bool = False,
) -> ExitNetwork:
    """The trained network of a trial, in eval mode. attached: the network to fill a copy of, where the
    trial's was attached in Python; trust_code: see `blank_network`.

    Raises:
        OfframpError: For a trial whose network or files are gone.
    """
    manifest = store.read_trial(trial)
    net = (
        blank_network(store, trial, trust_code)
        if attached is None
        else _checked(store, trial, identified(attached))
    )
    final: dict[int, Lineage] = {
        int(k): tuple(Source(s.node, s.draw) for s in way) for k, way in manifest.final.items()
    }
    weights = Weights(net, manifest.seed, store.node_weights, device)
    return weights.assembled(final, manifest.owners, manifest.carry)


def is_attached(store: Store, trial: str) -> bool:
    """Whether the trial's network was a module at hand, so that the store has no name to make it by."""
    return "state" in _identity(store, store.read_trial(trial))


def blank_network(store: Store, trial: str, trust_code: bool = False) -> ExitNetwork:
    """A trial's network without what it learned. trust_code: run the file that the store names, where
    the backbone is code of somebody's own.

    Raises:
        OfframpError: For a backbone that has changed since, or whose file is gone or not trusted.
    """
    manifest = store.read_trial(trial)
    spec = _net_spec(manifest.network)
    trained = _identity(store, manifest)
    recorded = RecordedCode(trained.get("file"), trust_code)
    size = tuple(manifest.input_shape)
    if manifest.program == ADOPTED and usercode.is_user_code(spec.backbone):
        named = replace(spec, taps=None)
        make = origin_of(named, size, len(manifest.classes), recorded).make
        assert make is not None
        own = with_exits(drawn_module(make, manifest.seed, "initial"), size)
        return _checked(store, trial, identified(own))
    if is_attached(store, trial):
        raise OfframpError(
            f"the network of trial {trial} was attached in Python and has no name to make it by; "
            "attach it the same way and give it to offramp.load as net=, or train a network that was "
            "attached by name: offramp.attach('my.py:make_net', …)"
        )
    if not is_chain(spec.taps):  # where they were put, whatever would be chosen today
        spec = replace(spec, taps=manifest.places[:-1])
    heads = _heads(store, manifest)
    net = build(spec, size, len(manifest.classes), manifest.seed, recorded, heads)
    same = canonical(inside(net).facts.identity) == canonical(trained)
    if not same or net.places != manifest.places:
        raise OfframpError(
            f"the backbone '{spec.backbone}' is not what trial {trial} was trained on; "
            "bring back its code as it was, or train again"
        )
    return net.carrying(manifest.carry)


def _heads(store: Store, manifest: stored.Manifest) -> dict[str, HeadSpec]:
    """What the trial's early exits are made of, by place, as far as a phase read them."""
    read = [store.read_node(key).phase.exits for key in manifest.keys]
    specs = {place: exit.head.spec for exits in read for place, exit in exits.items()}
    names = [field.name for field in fields(HeadSpec)]
    return {
        place: HeadSpec(**{name: spec[name] for name in names if name in spec})
        for place, spec in specs.items()
        if isinstance(spec, Mapping)  # that of the final exit is a word
    }


def _checked(store: Store, trial: str, net: ExitNetwork) -> ExitNetwork:
    """`net`, if it is what the trial was trained on. Raises OfframpError where it is not."""
    manifest = store.read_trial(trial)
    heads = {p: plain(spec) for p, spec in zip(net.places, inside(net).head_specs, strict=False)}
    same = net.places == manifest.places and net.classes == len(manifest.classes)
    for key in manifest.keys:
        node = store.read_node(key)
        phase, own = node.phase, inside(net).facts.identity
        if ADOPTED in node.reads:  # all weights are the node's
            theirs = ("state", "attributes", "file")
            own = {**own, **{k: v for k, v in phase.network.items() if k in theirs}}
        same = same and canonical(phase.network) == canonical(own)
        for place, exit in phase.exits.items():
            same = same and exit.head.spec == heads.get(place, "classifier")
    if not same:
        raise OfframpError(
            f"net is not what trial {trial} was trained on; attach the same module, with the weights it "
            "had then, with the same taps and heads"
        )
    return net


def _net_spec(network: stored.NetworkRecord) -> NetSpec:
    def tupled(pairs: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
        return tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in pairs)

    return NetSpec(
        backbone=network.backbone,
        options=tupled(network.options),
        taps=network.taps,
        head=tupled(network.head),
        weights=network.weights,
    )
