"""Lists of studies."""

import gc
import weakref
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.study.plan import plan
from offramp.study.plan.plan import plans
from offramp.study.spec.file import members
from refusal import refuses
from wording import refusal

STUDY = "strategies: [joint]\nbackbone: digits-cnn\ndata: {name: digits}\n"


def listed(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{STUDY}")
    path = folder / "all.yaml"
    path.write_text(text)
    return path


def test_a_list_is_read_in_its_order_with_the_settings_in_every_study(tmp_path: Path) -> None:
    path = listed(tmp_path, "name: both\nstudies: [b.yaml, a.yaml]\n")
    studies = members(path, ["recipe.epochs=3"])
    assert [m.study.name for m in studies] == ["b", "a"]
    assert [m.study.recipe.epochs for m in studies] == [3, 3]
    (alone,) = members(tmp_path / "a.yaml")
    assert alone.study.name == "a" and alone.study.recipe.epochs == 20


def test_the_data_root_of_a_list_holds_a_folder_for_each_data_set(tmp_path: Path) -> None:
    path = listed(tmp_path, "studies: [a.yaml, b.yaml]")
    (tmp_path / "b.yaml").write_text(STUDY.replace("digits}", "cifar10}"))
    studies = members(path, data_root=Path("here"))
    assert [m.study.data.root for m in studies] == ["here/digits", "here/cifar10"]
    (alone,) = members(tmp_path / "b.yaml", data_root=Path("here"))
    assert alone.study.data.root == "here"


WRONG = (
    *("studies: [../a.yaml]", "studies: [/etc/a.yaml]", "studies: []", "studies: a.yaml"),
    *("studies: [1]", "studies: [a.yaml, a.yaml]", "studies: [all.yaml]", "studies: [c.yaml]"),
    "studies: [a.yaml]\nseeds: [1]",
)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_list_is_one_line(
    tmp_path: Path, text: str, snapshot: SnapshotAssertion
) -> None:
    path = listed(tmp_path / "studies", text)
    (tmp_path / "a.yaml").write_text(STUDY)
    assert refusal(members, path) == snapshot


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    path = listed(tmp_path / "studies", "studies: [c.yaml]")
    (tmp_path / "c.yaml").write_text(STUDY)
    (tmp_path / "studies" / "c.yaml").symlink_to(tmp_path / "c.yaml")
    refuses("lies outside", members, path)


def test_data_that_studies_have_in_common_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = listed(tmp_path, "studies: [a.yaml, b.yaml]")
    read, reads = plan.read_data, []
    monkeypatch.setattr(plan, "read_data", lambda *args: reads.append(args) or read(*args))
    first, other = plans([member.study for member in members(path, ["seeds=[1]"])])
    assert len(reads) == 1 and first.data is other.data and first.nodes.keys() == other.nodes.keys()


def test_data_that_no_later_study_reads_do_not_stay_in_memory(tmp_path: Path) -> None:
    path = listed(tmp_path, "studies: [a.yaml, b.yaml]")
    text = (tmp_path / "b.yaml").read_text().replace("digits}", "digits, train_images: 300}")
    (tmp_path / "b.yaml").write_text(text)
    each = plans([member.study for member in members(path, ["seeds=[1]"])])
    data = weakref.ref(next(each).data)
    later = next(each)
    gc.collect()
    assert data() is None and len(later.data.train) < 300
