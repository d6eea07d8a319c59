"""What would be published: one version, links that hold on another site, and the commit of the code."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ADDRESS = "https://example.org/someone/offramp"


@pytest.fixture(scope="module")
def hatch_build():
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    recipe = (ROOT / "docs/conda/recipe.yaml").read_text("utf-8")
    assert citation["version"] == version
    assert f'version: "{version}"' in recipe
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_a_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = yaml.safe_load((ROOT / "docs/conda/recipe.yaml").read_text("utf-8"))
    conda_names = {"torch": "pytorch"}
    wheel = {_name(need) for need in PROJECT["project"]["dependencies"]}
    conda = {_name(need) for need in recipe["requirements"]["run"]} - {"python"}
    assert conda == {conda_names.get(name, name) for name in wheel}


def _name(requirement: str) -> str:
    return re.split(r"[ <>=]", requirement)[0]


def test_links_of_the_readme_are_absolute_in_what_is_published(hatch_build) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    published = hatch_build.absolute_links(readme, ADDRESS, "abc")
    relative = re.compile(r"\]\((?!https?:|#)")
    assert relative.search(readme) and not relative.search(published)  # as it lies here, it has some
    assert f"]({ADDRESS}/raw/abc/docs/results/figures/accuracy-compute.svg)" in published
    assert f"]({ADDRESS}/blob/abc/docs/studies.md)" in published
    own = "[a](#b) [c](https://d)"
    assert hatch_build.absolute_links(own, ADDRESS, "abc") == own


def test_links_of_the_readme_lead_to_files_of_the_repository() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for path in re.findall(r"\]\((?!https?:|#)([^)#]+)", readme):
        assert (ROOT / path).exists(), path


def test_the_address_comes_from_outside_or_is_left_out(hatch_build, monkeypatch) -> None:
    for variable in ("OFFRAMP_REPOSITORY", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(variable, raising=False)
    assert hatch_build.repository() == ""
    hook = hatch_build.Metadata(str(ROOT), {})
    metadata: dict = {}
    hook.update(metadata)
    assert "urls" not in metadata and "](docs/studies.md)" in metadata["readme"]["text"]

    monkeypatch.setenv("GITHUB_SERVER_URL", "https://example.org")
    assert hatch_build.repository() == ""  # half an address is none
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/offramp")
    hook.update(metadata)
    assert metadata["urls"]["Source"] == ADDRESS
    assert "](docs/studies.md)" not in metadata["readme"]["text"]


def test_a_version_tells_the_commit_of_its_code(tmp_path, monkeypatch) -> None:
    """A package that lies in somebody else's repository does not tell that one's commit."""
    app = importlib.import_module("offramp.cli.app")
    elsewhere = tmp_path / "elsewhere" / "lib" / "site-packages" / "offramp" / "cli"
    elsewhere.mkdir(parents=True)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "a", "--allow-empty"]
    for command in (["init", "-q"], commit):
        subprocess.run(["git", "-C", str(tmp_path / "elsewhere"), *command], check=True)

    monkeypatch.setattr(app, "__file__", str(elsewhere / "app.py"))
    assert app._commit() == ""
    shutil.copytree(tmp_path / "elsewhere" / ".git", elsewhere.parents[2] / ".git")  # a checkout of ours
    assert re.fullmatch("[0-9a-f]{40}", app._commit())
    (elsewhere.parent / "COMMIT").write_text("0123456789abcdef\n")  # a wheel's
    assert app._commit() == "0123456789abcdef"


NO_EXTRAS = """
import importlib, pkgutil, sys
extras = set(sys.argv[1].split())
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in extras:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import offramp
for module in pkgutil.walk_packages(offramp.__path__, "offramp."):
    try:
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(module.name)
"""
OF_AN_EXTRA = {
    *(f"offramp.bundle.on_{name}" for name in ("openvino", "executorch")),
    *(f"offramp.serve.{name}" for name in ("app", "server", "uploads")),
    *(f"offramp.track.{name}" for name in ("mlflow", "tensorboard", "wandb")),
}


def test_without_extras_all_but_what_they_are_for_can_be_imported() -> None:
    names = (
        "onnx onnxscript onnxruntime starlette uvicorn prometheus_client datasets huggingface_hub s3fs "
        "ray tensorboard mlflow wandb optuna pynvml openvino executorch"
    )
    command = [sys.executable, "-c", NO_EXTRAS, names]
    absent = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(absent) == OF_AN_EXTRA


QUICK = ("offramp", "offramp.bundle.hub", "offramp.paper.recipes", "offramp.study.spec.file")


@pytest.mark.parametrize("name", QUICK)
def test_what_is_quick_to_import_imports_no_torch(name: str) -> None:
    code = f"import sys, {name}; offramp.OfframpError, dir(offramp); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
