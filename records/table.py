"""Print records/results.jsonl: the newest line of every figure, misses first."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def newest(path: Path) -> list[dict]:
    """The last line of each id, misses first, then by id."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["id"]] = row
    return sorted(rows.values(), key=lambda row: (row["met"] is True, row["id"]))


def shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> int:
    table = Table(show_lines=True)
    for name in ("id", "value", "unit", "bar", "met", "date", "command"):
        table.add_column(name, overflow="fold")
    for row in newest(Path(__file__).parent / "results.jsonl"):
        table.add_row(row["id"], shown(row["value"]), row["unit"], str(row["bar"]), "yes" if row["met"] else "NO",
                      row["date"], row["command"])
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
