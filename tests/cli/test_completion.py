"""`offramp --completion`: a shell that has read the script completes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Cli

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
    for words in ("stat", "run --log-f", "strategies joint-b", "show two"):
        lines.append(f"COMP_WORDS=(offramp {words}); COMP_CWORD={words.count(' ') + 1}; COMPREPLY=()")
        lines += ["_offramp_completion offramp", 'echo "${COMPREPLY[*]}"']
    lines.insert(0, f'PATH="{program.parent}:$PATH"')
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    status, option, strategy, trials = done.stdout.splitlines()
    assert status.split() == ["status"]
    assert sorted(option.split()) == ["--log-file", "--log-format"] and strategy == "joint-branch"
    assert len(trials.split()) == 2 and all(t.startswith("two-stage-digits") for t in trials.split())
