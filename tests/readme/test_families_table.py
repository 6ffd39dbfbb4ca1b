"""The table of families in the guide is that of the code."""

from pathlib import Path

from tickwise.models.families import FAMILIES, USED_BY

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "families.md"


def table():
    """Families by what they are for, in the order of the code."""
    by_purpose: dict[str, list[str]] = {}
    for family in FAMILIES.values():
        by_purpose.setdefault(family.purpose, []).append(family.name)
    rows = [f"| {purpose} | {', '.join(names)} | "
            f"{', '.join(f'`{verb}`' for verb in (*USED_BY[purpose], 'disasm'))} |"
            for purpose, names in by_purpose.items()]
    return "\n".join(["| purpose | families | verbs |", "|---|---|---|", *rows])


def test_the_guide_has_the_table_of_the_code():
    text = GUIDE.read_text(encoding="utf-8")
    written = text.split("<!-- families -->")[1].split("<!-- /families -->")[0].strip()
    assert written == table(), f"put this between the marks in docs/families.md:\n{table()}"
