"""Write one page per verb into docs/verbs/ from the flags themselves; ``--check`` only compares."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

os.environ["COLUMNS"] = "100"
os.environ["NO_COLOR"] = "1"

from tickwise.cli import VERBS, overview
from tickwise.cli.dispatch import parse

FOLDER = Path(__file__).parent / "verbs"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def page(verb: str) -> str:
    """The Markdown page of one verb."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        parse(verb, ["--help"])
    lines = [line.rstrip() for line in _COLOUR.sub("", text.getvalue()).strip().splitlines()]
    return f"# tickwise {verb}\n\n{VERBS[verb][1].capitalize()}.\n\n```text\n" + "\n".join(lines) + "\n```\n"


def pages() -> dict[str, str]:
    """File name → content."""
    index = "# Verbs\n\n```text\n" + overview() + "\n```\n\n" + "".join(
        f"- [{verb}]({verb.replace(' ', '-')}.md): {line}\n" for verb, (_, line) in VERBS.items())
    return {"index.md": index} | {f"{verb.replace(' ', '-')}.md": page(verb) for verb in VERBS}


def main() -> int:
    made = pages()
    if "--check" in sys.argv:
        stale = [name for name, text in made.items()
                 if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != text]
        stale += [p.name for p in FOLDER.glob("*.md") if p.name not in made]
        if stale:
            print(f"out of date: {', '.join(stale)}; run make docs", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
