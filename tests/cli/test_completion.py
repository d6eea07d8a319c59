"""`offramp --completion`: a shell that has read the script completes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Cli

TYPED = (
    *("stat", "run --log-f", "strategies joint-b", "report --figures --only cur", "recipes de"),
    "show two",
)
PROGRAM = f"#!{sys.executable}\nfrom offramp.cli import main\nmain()\n"


def test_each_shell_has_a_script_of_its_own(cli: Cli) -> None:
    scripts = {shell: cli("--completion", shell) for shell in ("bash", "zsh", "fish")}
    assert all(answer.code == 0 and "_OFFRAMP_COMPLETE" in answer.out for answer in scripts.values())
    assert len({answer.out for answer in scripts.values()}) == 3
    assert cli("--completion", "csh").code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_options_and_names(studied: Cli, tmp_path: Path) -> None:
    """The script is sourced, and asked as bash asks it when Tab is pressed."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "offramp"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (tmp_path / "s.sh").write_text(studied("--completion", "bash").out)
    lines = ["source ./s.sh"]
    for words in TYPED:
        lines.append(f"COMP_WORDS=(offramp {words}); COMP_CWORD={words.count(' ') + 1}; COMPREPLY=()")
        lines += ["_offramp_completion offramp", 'echo "${COMPREPLY[*]}"']
    lines.insert(0, f'PATH="{program.parent}:$PATH"')
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    status, option, strategy, figure, recipe, trials = done.stdout.splitlines()
    assert status.split() == ["status"]
    assert sorted(option.split()) == ["--log-file", "--log-format"] and strategy == "joint-branch"
    assert (figure, recipe) == ("curves", "demo")
    assert len(trials.split()) == 2 and all(t.startswith("two-stage-digits") for t in trials.split())


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("run stud", "file,stud"),
        ("report --out re", "file,re"),
        ("show nothing-begins-so", "file,nothing-begins-so"),  # it may be a bundle
        ("run --seed ", ""),
    ],
)
def test_what_may_be_a_file_is_completed_by_the_shell(words: str, answer: str) -> None:
    asked = {"_OFFRAMP_COMPLETE": "bash_complete", "COMP_WORDS": f"offramp {words}"}
    environment = os.environ | asked | {"COMP_CWORD": str(words.count(" ") + 1)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == answer


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_shows_whole_descriptions(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "offramp").write_text(PROGRAM)
    (tmp_path / "offramp").chmod(0o755)
    (tmp_path / "s.fish").write_text(cli("--completion", "fish").out)
    lines = f"set PATH {tmp_path} $PATH; source {tmp_path}/s.fish; complete -C 'offramp sto'"
    done = subprocess.run(["fish", "-N", "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout == "store\tCopy, pack, clean up or track a store.\n"
