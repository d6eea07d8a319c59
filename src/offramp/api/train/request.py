"""What is to be trained, and where it runs."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from offramp.api.options import TrainingOptions, check_names
from offramp.errors import OfframpError
from offramp.store.place import place
from offramp.units import counted

if TYPE_CHECKING:
    import torch

    from offramp.store.place import Place
    from offramp.store.store import Store
    from offramp.study.plan.plan import Plan
    from offramp.study.plan.workers import Workers
    from offramp.study.run.cluster import Cluster
    from offramp.study.run.events import Event
    from offramp.study.run.run import RunConfig
    from offramp.study.spec.file import ListedStudy, StudyFile
    from offramp.study.spec.models import Study

WITHOUT_STUDY = ("strategy", "backbone", "data")  # what is named where no study is


@dataclass(frozen=True)
class StudyRequest:
    """Studies to train, one after another.

    Attributes:
        name: What messages call them.
        members: Each study, with its file; one whose seeds draw their own splits is a study for each.
        files: The files that they are from; none of a study that was made here.
    """

    name: str
    members: Sequence[ListedStudy]
    files: Sequence[StudyFile]

    @property
    def studies(self) -> list[Study]:
        return [member.study for member in self.members]

    @property
    def of_one_study(self) -> bool:
        """Whether its members are one study, each with the splits that a seed of it draws."""
        first, *others = (m.study.model_copy(update={"seeds": (0,)}) for m in self.members)
        return all(other == first and other.control is None for other in others)

    def check_alone(self, **options: object) -> None:
        """Raises OfframpError for an option of one study, where there are several."""
        for name, setting in options.items():
            if len(self.members) > 1 and setting is not None and setting is not False:
                raise OfframpError(
                    f"`{name}` is for one study, and {self.name} stands for {len(self.members)}; "
                    "run one of them, without its controls"
                )


def requested(
    study: str | Path | Mapping[str, Any] | Study | None,
    training: TrainingOptions,
    on_cluster: bool = False,
) -> StudyRequest:
    """The studies that are to be trained. study: None where the options name a strategy; on_cluster:
    other machines train, whose cores this one does not know.

    Raises:
        OfframpError: The study cannot be read, or the options do not go with it.
    """
    from offramp.study.spec import file as spec
    from offramp.study.spec.file import ListedStudy
    from offramp.study.spec.models import Study

    check_names(training, TrainingOptions)
    settings = study_settings(training)
    named = [name for name in (*WITHOUT_STUDY, "seed") if training.get(name) is not None]
    root = training.get("data_root")
    if study is not None and named:
        raise OfframpError(f"`{named[0]}` is for a run without a study; leave one of them out")
    if isinstance(study, Study) and (settings or root is not None):
        raise OfframpError("settings change a study file or a mapping; this is a finished Study")
    if study is None:
        study = _without_file(training, settings, "exact" if on_cluster else "fast")
    if isinstance(study, (str, Path)):
        files = spec.study_files(Path(study), settings, None if root is None else Path(root))
        return StudyRequest(str(study), spec.studies(files), files)
    if isinstance(study, Study):
        parsed = study
    else:
        parsed = spec.parse(study, overrides=[*spec.root_setting(root), *settings])
    return StudyRequest("the study", [ListedStudy(Path(), part) for part in parsed.parts], ())


def _without_file(training: TrainingOptions, settings: Sequence[str], numerics: str) -> Study:
    """One trial: a strategy on a network and a data set. numerics: unless a setting names others."""
    from offramp.study.spec import file as spec

    flags = {"strategies": "--strategy", "backbone": "--backbone", "data": "--data"}
    missing = [f"`{name}`" for name in WITHOUT_STUDY if training.get(name) is None]
    if len(missing) == len(WITHOUT_STUDY):
        raise OfframpError(
            "name a study file (for a first one: offramp recipes demo > demo.yaml), or a strategy with "
            "`strategy`, `backbone` and `data`"
        )
    if missing:
        raise OfframpError(f"without a study, also name {' and '.join(missing)}")
    source = {"name": training["data"]}
    root = training.get("data_root")
    source |= {} if root is None else {"root": str(root)}
    seed = training.get("seed")
    study = {
        "seeds": [42 if seed is None else seed],
        "strategies": [training["strategy"]],
        "backbone": training["backbone"],
        "data": source,
        "numerics": numerics,
    }
    return spec.parse(study, "offramp run", settings, flags)


def study_settings(training: TrainingOptions) -> list[str]:
    """The options as settings of a study file."""
    settings = list(training.get("settings") or ())
    mode = training.get("execution")
    settings += [] if mode is None else [f"execution.mode={mode}"]
    memory, disk = training.get("cache_memory"), training.get("cache_disk")
    sizes = {"cache_memory": memory, "cache_disk": disk}
    settings += [f"execution.{name}={size}" for name, size in sizes.items() if size is not None]
    return settings


@dataclass(frozen=True)
class TrainingSite:
    """Where a study trains.

    Attributes:
        store: Keeps the work.
        device_name: As `offramp.device.chosen` takes it.
        workers: Processes of this machine; None for as many as suit.
        cluster: Machines that were joined; None for this machine alone.
    """

    store: Place
    device_name: torch.device | str | None
    workers: int | None = None
    cluster: Cluster | None = None

    @property
    def device(self) -> torch.device:
        from offramp import device as devices

        if self.cluster is not None:  # whose devices need not be here
            return devices.elsewhere(str(self.device_name or "") or None, self.cluster.device)
        return devices.chosen(self.device_name)

    def staff(self, plan: Plan) -> Workers:
        """The workers of a plan: as many as were named, else as many as suit."""
        from offramp.store.store import Store
        from offramp.study.plan.workers import Workers, chosen, suited

        if self.cluster is not None:
            from offramp.study.run.driver import needs_of

            room = self.cluster.room(needs_of(plan))
            own = ", started here" if self.cluster.own else ""
            return Workers(room.groups, f"on Ray{own}: {counted(room.machines, 'machine')} by now")
        if self.workers is not None:
            return chosen(plan, self.workers)
        return suited(plan, Store(self.store), self.device)

    def events(self, plan: Plan, store: Store, workers: Workers) -> Generator[Event, None, None]:
        """Train a plan, event by event."""
        if self.cluster is not None:
            from offramp.study.run.driver import run_on_cluster

            return run_on_cluster(plan, store, self.cluster)
        from offramp.study.run.processes import run_pooled

        return run_pooled(plan, store, run_config(self.device, workers.count))


def run_config(device: torch.device, workers: int = 1) -> RunConfig:
    """How work is done on this machine."""
    from offramp.study.plan.caching import cache_folder
    from offramp.study.run.run import RunConfig

    return RunConfig(device=device, cache_folder=cache_folder(), workers=workers)


def worker_count(text: str, name: str) -> int | Literal["auto"]:
    """What `--workers` says. Raises OfframpError for anything but auto and numbers from 1 on."""
    if text == "auto":
        return "auto"
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise OfframpError(f"{name} must be auto or a number from 1 on; got '{text}'")
    return int(text)


def cluster_address(on: str, workers: int | str | None) -> str | None:
    """The cluster that `on` names; None for this machine alone.

    Raises:
        OfframpError: It names something else, or the number of workers is named too.
    """
    if on == "local":
        return None
    if on != "ray" and not re.fullmatch(r"ray://[^\s/]+:[0-9]{1,5}", on):
        raise OfframpError(f"`on` must be local, ray or ray://HOST:PORT; got '{on}'")
    if workers not in (None, "auto"):
        raise OfframpError("`workers` is for one machine; a cluster has the cores that Ray was given")
    return on


@contextmanager
def joined_site(
    store: Place | str,
    device: torch.device | str | None,
    workers: int | None,
    address: str | None,
) -> Iterator[TrainingSite]:
    """Where a study trains, its cluster joined while the block runs."""
    root = place(store)
    if address is None:
        yield TrainingSite(root, device, workers)
        return
    from offramp.study.run.cluster import joined

    with joined(address) as cluster:
        yield TrainingSite(root, device, None, cluster)
