"""The study file: what to run, on which network and data, how long, and how it is executed.

Reading is strict: an unknown key, a value of another type or out of range is refused in one line
that names the file's line (or the `--set` flag) and the remedy. Names of strategies, backbones,
data sets, places and numerics profiles are checked where they are looked up; `Study.where` gives
their lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    model_validator,
)

from offramp.augment import Augment
from offramp.data_spec import DataSpec, Loader, Natural, Pixels, Text
from offramp.errors import OfframpError, UnknownKey, Unwritable, literal, nearest
from offramp.hashing import plain
from offramp.parts import Taps
from offramp.phase import Temperature
from offramp.recipe import Recipe, clash
from offramp.sections import Section, fail, mapping
from offramp.strategies import CUT_OFF, PLAIN, Strategy
from offramp.strategies.joint import JointWeights
from offramp.study.spec import fields, places
from offramp.study.spec.yaml_lines import Path
from offramp.usercode import is_user_code

Switch = Annotated[bool, BeforeValidator(fields.switch)]
# Pydantic's own, of a union behind a plain validator, warns of each tuple.
AsPlain = PlainSerializer(plain, when_used="json")
CountOrAuto = Annotated[int | Literal["auto"], PlainValidator(fields.limit)]
Options = dict[str, Any]
NamedValues = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class RecipeSpec(Recipe):
    """A recipe, and four settings that belong to the whole study."""

    # of the exits in joint training, by scheme or one number an exit
    joint_weights: Annotated[JointWeights, PlainValidator(fields.joint_weights)] = "linear"
    temperature: Temperature = 3.0  # of distillation
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1  # of distillation
    # whether `epochs` is each phase's or split over a strategy's phases
    budget: Literal["phase", "total"] = "phase"

    @property
    def recipe(self) -> Recipe:
        """What a phase trains by, unless it overrides it."""
        return Recipe(**{name: getattr(self, name) for name in RECIPE_FIELDS})


RECIPE_FIELDS = tuple(field.name for field in dataclasses.fields(Recipe))
read_recipe = fields.reader(RecipeSpec)


def _overrides(value: Any) -> dict[str, Any]:
    """The recipe fields that were given, in a fixed order."""
    read = read_recipe(value)
    for name in value:
        if name not in RECIPE_FIELDS:
            raise fail("belongs to the whole study; set it under 'recipe'", name)
    return {name: getattr(read, name) for name in RECIPE_FIELDS if name in value}


def _without_epochs(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings by phase, or by strategy, but for epochs."""
    names = ("epochs", "recipe.epochs")
    return {of: {k: v for k, v in own.items() if k not in names} for of, own in settings.items()}


class StrategySpec(Section):
    """One strategy."""

    name: Text
    # the function itself, where Python has one instead of a name
    own: Annotated[Strategy | None, Field(exclude=True)] = None
    label: Text = Field(alias="as")  # what tables call it; its name unless `as` says otherwise
    options: Options  # its own, such as `students`
    # recipe fields (those that were set count) by pattern of phase names
    phases: dict[str, Annotated[Options, PlainValidator(_overrides)]] = Field({})

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        gathered = fields.gather_options(value, {"name", "as", "phases"})
        if callable(own := gathered.get("name")):
            if not hasattr(own, "__name__"):
                raise fail("must be a function with a name; write it with def", "name")
            name = f"{own.__module__}.{own.__qualname__}"
            return {"as": own.__name__, **gathered, "name": name, "own": own}
        return {"as": gathered["name"], **gathered} if "name" in gathered else gathered

    @property
    def source(self) -> str | Strategy:
        """What gives the phases: a name to look up, or the function."""
        return self.own or self.name

    @property
    def overrides(self) -> tuple[tuple[str, NamedValues], ...]:
        """Recipe overrides by pattern of phase names, in the order of the file: later ones win."""
        return tuple((pattern, tuple(fields.items())) for pattern, fields in self.phases.items())


class BackboneSpec(Section):
    """The backbone."""

    name: Text  # of the registry, `timm/NAME` or `file.py:function`
    # what it starts from: a file, or `imagenet`; None draws them from the seed
    weights: Text | None = None
    options: Options  # such as `stem`

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return fields.gather_options(value, {"name", "weights"})


def _head(value: Any) -> dict[str, Any]:
    """Fields of a head, in their order. Which kind of head reads which is checked where it is made."""
    from offramp.nets import heads  # it brings torch, which a study that names no head can do without

    names: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(heads.HeadSpec)}
    settings = {k: v for k, v in mapping(value, names).items() if v is not None}
    for name, setting in settings.items():
        if not heads.allowed(name, setting):
            hint = nearest(str(setting), heads.KINDS) if name == "kind" else ""
            hint = hint if "did you mean" in hint else ""
            raise fail(f"must be {heads.must_be(name)}, got {literal(setting)}{hint}", name)
    # 0 and 0.0 are one dropout and must be one key.
    return {k: type(default)(settings[k]) for k, default in names.items() if k in settings}


MATCHED: Literal["matched"] = "matched"  # epochs of a control, which follow from the study's work


class ExitsSpec(Section):
    """The early exits."""

    # names of places, shares of the MACs (`25%`), or how many early exits; None is the backbone's own
    # choice. Where nothing can be traced: lists of submodules, for each segment and the classifier
    taps: Annotated[Taps, PlainValidator(fields.taps), AsPlain] = None
    # fields of `offramp.nets.heads.HeadSpec` that differ from the backbone's own heads
    head: Annotated[Options, PlainValidator(_head)] = Field({})


DATA_FIELDS = tuple(field.name for field in dataclasses.fields(DataSpec))
_data = fields.reader(DataSpec)


def read_data(value: Any) -> DataSpec:
    """Any key that is not a field is an option of the data set."""
    value = fields.gather_options(fields.name_and_root(value), set(DATA_FIELDS) - {"options"})
    return _data({**value, "options": tuple(sorted(value["options"].items()))})


class ExecutionSpec(Section):
    """How the work is arranged; no result depends on it, but on `devices`."""

    # `plain` runs each phase alone, live and unshared, so there the three switches are off
    mode: Literal["derived", "plain"] = "derived"
    cache: Switch = True  # whether frozen values are cached
    fuse: Switch = True  # whether phases share passes over the data
    share: Switch = True  # whether strategies share phases
    # bytes of the caches of all workers together; `auto` leaves room for training and for others
    # (`offramp.study.plan.caching`)
    cache_memory: CountOrAuto = "auto"
    cache_disk: CountOrAuto = "auto"  # the same on disk
    # images in memory, or read from files when they are needed; `auto` goes by their size and
    # augmentation
    loader: Loader = "auto"
    # processes that read them; None goes by the number of cores
    loader_workers: Annotated[int, Field(ge=0)] | None = None
    # on a cluster, the share of a GPU that each group of phases gets
    gpus_per_trial: Annotated[float, Field(gt=0, le=1)] = 1.0
    # that train each phase together, which is part of its key; None is one, or as many as torchrun has
    # started processes
    devices: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        alone = isinstance(value, Mapping) and value.get("mode") == "plain"
        return {**dict.fromkeys(("cache", "fuse", "share"), False), **value} if alone else value

    @model_validator(mode="after")
    def _consistent(self) -> ExecutionSpec:
        for name in ("cache", "fuse", "share"):
            if self.mode == "plain" and getattr(self, name):
                raise fail(f"must be off where the mode is plain; remove '{name}'", name)
        return self


ALL = "all"  # of settings that all strategies have in common


class SearchSpec(Section):
    """How settings of the study were found: `offramp search` writes it, reports tell it."""

    over: dict[str, Text]  # where each was looked for
    # how many were tried, of each strategy where `per` says that each has its own
    trials: Annotated[int, Field(ge=1)]
    per: Literal["strategy"] | None = None
    found: dict[str, dict[str, Any]]  # settings by strategy, or of `all`
    validation: dict[str, float]  # their accuracy, 0 to 1, likewise


class ControlSpec(Section):
    """A plain network to compare with: the study's backbone with other options, another backbone, the
    network cut off at an exit, with its head, or on smaller images."""

    backbone: BackboneSpec | None = None  # in place of the study's
    # the exit at which it ends, by its number from 1 or by its tap
    cut: Annotated[int, Field(ge=1)] | Text | None = None
    size: Pixels | None = None  # pixels a side of the same images, in place of the study's
    # of its training; `matched`: as many as cost what a strategy with early exits costs, the middle one
    epochs: Annotated[int, Field(ge=1)] | Literal["matched"] = MATCHED
    options: Options  # of the study's backbone, such as `width`

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise fail(f"must be a mapping such as {{width: small}} or {{cut: 1}}, got {literal(value)}")
        read = fields.gather_options(value, {"backbone", "cut", "size", "epochs"})
        named = [
            key for key in ("backbone", "cut", "size", "options") if read.get(key) not in (None, {})
        ]
        if len(named) != 1:
            raise fail(
                "must name one network: options of the study's backbone such as width, a backbone, a "
                f"cut, or a size; got {literal(value)}"
            )
        if isinstance(read.get("backbone"), str):
            read["backbone"] = {"name": read["backbone"]}
        return read

    @property
    def label(self) -> str:
        """What it is called: `width small`, `resnet20`, `cut at layer2`."""
        if self.cut is not None:
            return f"cut at {'exit ' * isinstance(self.cut, int)}{self.cut}"
        if self.size is not None:
            return f"size {self.size}"
        if self.backbone is not None:
            return self.backbone.name
        return ", ".join(f"{name} {value}" for name, value in self.options.items())


class Study(Section):
    """A study file, read. `model_dump(mode="json")` is a full record of it."""

    name: Text | None = None
    # `small` cuts data, epochs, image size and seeds down to a rehearsal (`spec.file.small`)
    scale: Literal["full", "small"] = "full"
    seeds: Annotated[tuple[Natural, ...], Field(strict=False, min_length=1)] = (42, 43, 44, 45, 46)
    strategies: Annotated[tuple[StrategySpec, ...], Field(strict=False, min_length=1)]
    # plain networks that are trained beside it, each as a study of its own (`parts`)
    controls: Annotated[tuple[ControlSpec, ...], Field(strict=False)] = ()
    backbone: BackboneSpec
    exits: ExitsSpec = ExitsSpec()
    data: Annotated[DataSpec, BeforeValidator(read_data)]
    augment: Annotated[Augment | None, BeforeValidator(fields.augment)] = None
    recipe: Annotated[RecipeSpec, BeforeValidator(read_recipe)] = RecipeSpec()
    # tell test accuracy once more, of logits averaged over each image and its mirror image
    # (`accuracy_flipped`), as published numbers often are; nothing is calibrated or compared by it
    test_time_flip: Switch = False
    numerics: Text = "default"
    execution: ExecutionSpec = ExecutionSpec()
    search: SearchSpec | None = None

    _places: dict[Path, str] = PrivateAttr(default_factory=dict)
    _control: Control | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "studies" in value:
            raise fail("is a list of study files; name one of them", "studies")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        fields.refuse_repeated_seeds(self.seeds)
        fields.refuse_labels([s.label for s in self.strategies])
        if wrong := clash(self.recipe.recipe):
            raise fail(wrong[1], "recipe", wrong[0])
        if self.search is not None:
            self._refuse_other_settings(self.search)
        return self

    def _refuse_other_settings(self, search: SearchSpec) -> None:
        """Of what was found: else a report would tell what is not so."""
        for label, settings in search.found.items():
            own = next((s.phases.get("*", {}) for s in self.strategies if s.label == label), {})
            for key, value in settings.items():
                name = key.removeprefix("recipe.")
                now = getattr(self.recipe, name, value) if label == ALL else own.get(name, value)
                if name != key and now != value:
                    raise fail(
                        f"found {key} {literal(value)}, and the study has {literal(now)}; "
                        "remove 'search' where settings were changed since",
                        "search",
                    )

    @property
    def code_names(self) -> tuple[str, ...]:
        """What it names that is code of the user's own, each once: `my.py:make_net`."""
        named = (self.data.name, self.backbone.name, *(each.name for each in self.strategies))
        return tuple(dict.fromkeys(filter(is_user_code, named)))

    @property
    def control(self) -> Control | None:
        """The control that it trains, and the study beside which it stands; None of any other study."""
        return self._control

    @property
    def parts(self) -> tuple[Study, ...]:
        """The studies that this one stands for: itself, and one for each control; of each one for each
        seed, where each draws its own splits."""
        own = self.model_copy(update={"controls": ()})
        parts = own.by_split
        for index, control in enumerate(self.controls):
            parts += tuple(own._beside(control, index, each) for each in own.by_split)
        return parts

    @property
    def by_split(self) -> tuple[Study, ...]:
        """One for each seed, where each draws its own splits."""
        if self.data.split_seed != "trial":
            return (self,)
        return tuple(self.model_copy(update={"seeds": (seed,)}) for seed in self.seeds)

    def _beside(self, control: ControlSpec, index: int, host: Study) -> Study:
        """The study of a control: the plain network by the same recipe, but for its epochs, which phases
        may have set too."""
        plain = next((s for s in self.strategies if s.name == PLAIN), None)
        plain = plain or StrategySpec.model_validate({"name": PLAIN})
        plain = plain.model_copy(update={"phases": _without_epochs(plain.phases)})
        changed: dict[str, Any] = {}
        if self.search is not None:
            left = self.search.model_copy(update={"found": _without_epochs(self.search.found)})
            changed["search"] = left
        if control.cut is not None:
            with self.at("controls", index, "cut"):
                plain = StrategySpec.model_validate(
                    {"name": CUT_OFF, "as": control.label, "only": self._exit(control.cut)}
                )
        elif control.size is not None:
            resize, size = host.data.resize, host.data.size
            if resize is not None and size is not None:  # the same part of each picture
                resize = round(resize * control.size / size)
            changed["data"] = dataclasses.replace(host.data, size=control.size, resize=resize)
        elif control.backbone is not None:
            changed |= {"backbone": control.backbone, "exits": ExitsSpec()}
        else:
            options = {**self.backbone.options, **control.options}
            changed["backbone"] = self.backbone.model_copy(update={"options": options})
        changed |= {"strategies": (plain,)}
        if control.epochs != MATCHED:
            most = self.recipe.epochs if self.scale == "small" else control.epochs
            epochs = min(control.epochs, most)
            changed["recipe"] = dataclasses.replace(self.recipe, epochs=epochs)
        study = host.model_copy(update=changed)
        study._control = Control(control, host)
        own = ("backbone", "exits", "strategies")  # what is wrong with these was written as the control
        written = {
            path: place for path, place in self._places.items() if path[:1] not in [(k,) for k in own]
        }
        study._places = written | {(key,): self.where("controls", index) for key in own}
        return study

    def _exit(self, cut: str | int) -> int:
        """The number of an exit by its tap. Raises OfframpError where the study does not name it."""
        taps = self.exits.taps if isinstance(self.exits.taps, tuple) else ()
        if isinstance(cut, str) and cut not in taps:
            near = nearest(cut, [tap for tap in taps if isinstance(tap, str)])
            raise OfframpError(
                f"there is no exit '{cut}' under exits.taps{near}; name one, or write its number from 1"
            )
        return cut if isinstance(cut, int) else taps.index(cut) + 1

    @property
    def drawn_data(self) -> DataSpec:
        """The data, with the splits of the seed where each draws its own."""
        return self.data.drawn_for(self.seeds[0]) if len(self.seeds) == 1 else self.data

    def where(self, *path: str | int) -> str:
        """Where a setting was written, for a message about it: `study.where("strategies", 0)` is
        `studies/demo.yaml:7`, or `--set strategies=[joint]`; else the nearest around it."""
        return places.place(self._places, path)

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Errors about a setting begin with where it was written."""
        try:
            yield
        except OfframpError as error:
            kinds = (Unwritable, UnknownKey)  # which may pass by itself, or passes with no other value
            kind = next((each for each in kinds if isinstance(error, each)), OfframpError)
            raise kind(f"{self.where(*path)}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Control:
    """What a study of a control trains, and beside which study."""

    spec: ControlSpec
    host: Study


def part_names(study: Study) -> list[str]:
    """What tells one of `Study.parts` from the others."""
    seed = [f"seed {study.seeds[0]}"] if study.data.split_seed == "trial" else []
    if study.control is None:
        return seed
    epochs = study.recipe.epochs
    return [*seed, f"control {study.control.spec.label}, {epochs} epoch{'s' * (epochs != 1)}"]
