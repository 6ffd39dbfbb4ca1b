"""README and docs say what exists: commands parse, paths exist, both languages show the same commands."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "README.zh-CN.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
COMMAND_BLOCK = re.compile(r"```bash\n(.*?)```", re.S)
TREE_BLOCK = re.compile(r"```\n(src/tickwise/\n.*?)```", re.S)


def commands(page: str) -> list[str]:
    text = "\n".join(COMMAND_BLOCK.findall((ROOT / page).read_text(encoding="utf-8")))
    joined = text.replace("\\\n", " ")
    lines = (line.split("  #")[0].strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page):
    from tickwise.cli.dispatch import find_verb, parse

    for line in commands(page):
        for part in line.split(" | "):
            words = shlex.split(part.split(" > ")[0].replace("$SLURM_NNODES", "2"))
            words = words[words.index("tickwise"):] if "tickwise" in words[:2] else words
            if words[0] == "make":
                assert {w for w in words[1:] if "=" not in w} <= make_targets(), line
            elif words[0] == "tickwise" and words[1] not in ("completion", "--help", "--version"):
                verb, rest = find_verb(words[1:])
                if "--config" in rest:  # the file is the reader's
                    at = rest.index("--config")
                    del rest[at : at + 2]
                parse(verb, rest)


def test_both_languages_show_the_same_commands():
    assert commands("README.md") == commands("README.zh-CN.md")
    assert len(commands("README.md")) >= 8


@pytest.mark.parametrize("page", PAGES)
def test_trees_show_what_exists(page):
    for block in TREE_BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        shown = {line.split()[0].rstrip("/") for line in block.splitlines()[1:] if line.startswith("  ")}
        source = ROOT / "src" / "tickwise"
        real = {p.name for p in source.iterdir() if p.is_dir() and any(p.glob("*.py"))}
        assert shown == real


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8")):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_verb_pages_are_up_to_date():
    import subprocess
    import sys

    done = subprocess.run([sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_fill_in(page):
    assert "@@" not in (ROOT / page).read_text(encoding="utf-8")


def test_flags_of_benches_and_recipes_parse():
    import yaml

    from tickwise.cli.dispatch import find_verb, parse

    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        text = recipe.read_text()
        assert yaml.safe_load(text)
        comment = "\n".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
        lines = [line for line in comment.replace("\\\n", " ").splitlines() if line.startswith("tickwise ")]
        assert any(f"--config recipes/{recipe.name}" in line for line in lines), f"{recipe.name} says how it is run"
        for line in lines:
            words = shlex.split(line.replace("recipes/", f"{ROOT}/recipes/"))
            parse(*find_verb(words[1:]))
    namespace: dict[str, str] = {}
    bench = (ROOT / "bench" / "nanogpt_pairs.py").read_text()
    exec(bench[bench.index("SAME_MODEL") : bench.index("def run(")], namespace)
    parse("train", ["text.txt", *namespace["SAME_MODEL"].split()])


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_python_example_runs(page, tmp_path, monkeypatch, small_text, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    (tmp_path / "my.txt").write_bytes(small_text.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(example.replace("max_seconds=300", "max_steps=3, depth=1, context=32"), {})
    assert capsys.readouterr().out.strip()
