import os
import re
import subprocess

import pytest

from tickwise.cli import VERBS
from tickwise.cli.completion import script, verb_flags
from tickwise.cli.dispatch import dispatch


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "tickwise.bash"
    path.write_text(script("bash"))
    return path


def complete(path, *words):
    """What bash offers when Tab is pressed after these words."""
    program = (
        f'source "{path}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tickwise; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", "tickwise", *words], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_accepts_the_script(bash_script):
    subprocess.run(["bash", "-n", str(bash_script)], check=True)


def test_bash_completes_verbs(bash_script):
    assert complete(bash_script, "ge") == ["generate"]
    assert set(complete(bash_script, "")) >= {"train", "generate", "evaluate", "data", "completion"}


def test_bash_completes_verbs_of_two_words(bash_script):
    assert complete(bash_script, "data", "p") == ["prepare"]
    assert "--json" in complete(bash_script, "data", "check", "--")


def test_bash_completes_flags_of_the_verb(bash_script):
    assert complete(bash_script, "generate", "model", "--temp") == ["--temperature"]
    assert complete(bash_script, "evaluate", "--temp") == []
    assert "--no-cache" in complete(bash_script, "generate", "--no-")


def test_bash_completes_choices(bash_script):
    assert complete(bash_script, "generate", "model", "--dtype", "") == ["fp32", "bf16"]
    assert complete(bash_script, "evaluate", "--split", "v") == ["validation"]
    assert complete(bash_script, "evaluate", "--split", "=") == ["train", "validation", "test"]
    assert complete(bash_script, "evaluate", "--split", "=", "v") == ["validation"]


def test_bash_leaves_files_to_the_shell(bash_script):
    assert complete(bash_script, "generate", "mod") == []


@pytest.mark.parametrize("verb", VERBS)
def test_the_flags_are_those_of_the_help_text(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        dispatch([*verb.split(), "--help"])
    # An option's line starts with its spellings, each before its value; prose comes later.
    heads = re.findall(r"^[│ ] (--?[a-z][^ ,]*(?:(?: [A-Z]+)?, -[^ ,]+)*)", capsys.readouterr().out, flags=re.MULTILINE)
    in_help = {name.split()[0] for head in heads for name in head.split(", ")}
    assert {name for flag in verb_flags(verb) for name in flag.names} == in_help


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_name_every_verb_and_its_flags(shell):
    written = script(shell)
    assert all(word in written for verb in VERBS for word in verb.split())
    assert "temperature" in written
    assert "fp32 bf16" in written


def test_the_command_line_prints_it(capsys):
    assert dispatch(["completion", "bash"]) == 0
    assert "complete -o default -F _tickwise tickwise" in capsys.readouterr().out
    assert dispatch(["completion", "fish"]) == 2
    assert os.linesep not in capsys.readouterr().err.strip()
