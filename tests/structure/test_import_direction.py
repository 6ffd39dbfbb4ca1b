"""Rooms import only what docs/architecture.md lets them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tickwise"


def allowed_imports() -> dict[str, set[str]]:
    """The last column of the table of rooms."""
    rooms: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            names = {part.strip("` ") for part in cells[3].split(",")}
            rooms[cells[0].strip("`")] = names
    return {room: set(rooms) if "everything" in names else names for room, names in rooms.items()}


def imported_rooms(path: Path) -> set[str]:
    """First components below ``tickwise`` of everything the file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module] if node.module != "tickwise" else [f"tickwise.{a.name}" for a in node.names]
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
        for name in names:
            parts = name.split(".")
            if parts[0] == "tickwise" and len(parts) > 1 and (SOURCE / parts[1]).is_dir():
                found.add(parts[1])
    return found


def rooms_on_disk() -> list[str]:
    return sorted(p.name for p in SOURCE.iterdir() if p.is_dir() and any(p.glob("*.py")))


def test_every_room_is_described_and_exists():
    assert set(rooms_on_disk()) == set(allowed_imports())


@pytest.mark.parametrize("room", rooms_on_disk())
def test_room_imports_only_what_it_may(room):
    may = allowed_imports()[room] | {room}
    for path in sorted((SOURCE / room).rglob("*.py")):
        too_much = imported_rooms(path) - may
        assert not too_much, f"{path.relative_to(ROOT)} imports {', '.join(sorted(too_much))}"


def test_the_rooms_form_no_cycle():
    allowed = {room: names & set(allowed_imports()) - {room} for room, names in allowed_imports().items()}
    used = {room: set().union(*(imported_rooms(p) for p in (SOURCE / room).rglob("*.py"))) - {room}
            for room in rooms_on_disk()}
    order: list[str] = []
    while len(order) < len(used):
        free = [room for room in used if room not in order and used[room] <= set(order)]
        assert free, f"these rooms import each other: {sorted(set(used) - set(order))} (allowed: {allowed})"
        order += free


def test_no_pickle_anywhere():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
