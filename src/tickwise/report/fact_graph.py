"""Facts as a drawing of boxes and arrows: SVG of its own, or a page with it."""

import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

from tickwise.core.errors import ConfigError
from tickwise.core.paths import write_text_atomic
from tickwise.report.figure_page import Section, figure_page
from tickwise.report.timeline import readable

ENDINGS = (".svg", ".html")
_ROW, _BOX, _MARGIN, _PAD, _GAP = 46, 28, 16, 10, 60
_LETTER, _LABEL_LETTER = 7.6, 6.7
_LONGEST = 44
_INK, _SOFT, _LINE, _ACCENT, _GROUND = "#1d2129", "#5c6470", "#9aa3b0", "#1f5a99", "#ffffff"


class Arrow(NamedTuple):
    """A fact: from its subject to its object, with the relation beside."""

    start: str
    label: str
    end: str


@dataclass(frozen=True)
class FactPicture:
    """What is drawn, with ``text`` below. ``first``: the name at the left; ``marked``: those that stand out, such as
    answers; ``rows``: what the page's table tells, below ``header``."""

    title: str
    text: str
    arrows: Sequence[Arrow]
    first: str = ""
    marked: frozenset[str] = frozenset()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


class _Tree(NamedTuple):
    """A spanning forest of the names: the depth and the row of each, and the numbers of the arrows it is made of."""

    depths: Mapping[str, int]
    rows: Mapping[str, float]
    arrows: frozenset[int]


def check_ending(path: Path) -> None:
    """``ConfigError`` for a file that is neither a picture nor a page."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: facts are drawn as a picture or a page; give a name that ends in "
                          f"{' or '.join(ENDINGS)}")


def write_fact_picture(path: Path, picture: FactPicture, command: str = "") -> None:
    """The picture (.svg) or page (.html), by the name's ending. Raises ``OutputError``, and ``ConfigError`` as
    ``check_ending``."""
    check_ending(path)
    svg = fact_svg(picture)
    if path.suffix.lower() == ".svg":
        write_text_atomic(path, svg)
        return
    rows = tuple(tuple(map(readable, row)) for row in picture.rows)
    section = Section("Facts", readable(picture.text), svg, picture.header, rows)
    write_text_atomic(path, figure_page(readable(picture.title), f"{len(picture.arrows):,} facts", [], [section],
                                        readable(command)))


def fact_svg(picture: FactPicture) -> str:
    """One SVG image: a name is a box, a fact an arrow from its subject to its object. Names are drawn from the left to
    the right by how many facts they are from the first one; what joins others than neighbours is dashed."""
    tree = _tree(picture.arrows, _key(picture.first))
    spelt: dict[str, str] = {}
    for arrow in picture.arrows:
        for name in (arrow.start, arrow.end):
            spelt.setdefault(_key(name), readable(name))
    shown = {key: _short(name) for key, name in spelt.items()}
    marked = {_key(name) for name in picture.marked}
    columns = _columns(picture.arrows, tree, shown)
    width = max((columns[depth] + _width(shown[name]) for name, depth in tree.depths.items()), default=0) + _MARGIN
    title = _short(picture.title, 110)
    width = max(width, _cells(title) * _LETTER + 2 * _MARGIN)
    top = 40
    foot = _short(picture.text, 160)
    width = max(width, _cells(foot) * _LABEL_LETTER + 2 * _MARGIN)
    height = top + (max(tree.rows.values(), default=0) + 1) * _ROW + 22

    def middle(name: str) -> float:
        return top + (tree.rows[name] + 0.5) * _ROW

    drawn = [_line(arrow, number in tree.arrows, tree, columns, shown, middle)
             for number, arrow in enumerate(picture.arrows)]
    parts = [*(line for line, _ in drawn), *(label for _, label in drawn)]
    for name, depth in tree.depths.items():
        ground, edge, ink = (_ACCENT, _ACCENT, _GROUND) if name in marked else (_GROUND, _LINE, _INK)
        x, y = columns[depth], middle(name) - _BOX / 2
        parts.append(
            f'<g><title>{escape(spelt[name])}</title>'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{_width(shown[name]):.1f}" height="{_BOX}" rx="6" '
            f'fill="{ground}" stroke="{edge}"/>'
            f'<text x="{x + _width(shown[name]) / 2:.1f}" y="{y + 18.5:.1f}" text-anchor="middle" fill="{ink}">'
            f'{escape(shown[name])}</text></g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, \'Noto Sans\', \'DejaVu Sans\', sans-serif" font-size="13">'
        f'<title>{escape(readable(picture.title))}</title>'
        f'<rect width="100%" height="100%" fill="{_GROUND}"/>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="{_SOFT}"/></marker></defs>'
        f'<text x="{_MARGIN}" y="24" font-weight="600" fill="{_INK}">{escape(title)}</text>'
        f'{"".join(parts)}'
        f'<text x="{_MARGIN}" y="{height - 8:.0f}" font-size="11" fill="{_SOFT}">{escape(foot)}</text>'
        '</svg>\n')


def _tree(arrows: Sequence[Arrow], first: str) -> _Tree:
    """Breadth-first from ``first``, and from the name with the most facts among those not reached; a leaf has a row of
    its own, and what has branches stands in their middle."""
    joined: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, arrow in enumerate(arrows):
        start, end = _key(arrow.start), _key(arrow.end)
        joined[start].append((number, end))
        joined[end].append((number, start))
    depths: dict[str, int] = {}
    branches: dict[str, list[str]] = defaultdict(list)
    used: set[int] = set()
    roots = []
    for root in sorted(joined, key=lambda name: (name != first, -len(joined[name]))):
        if root in depths:
            continue
        roots.append(root)
        depths[root] = 0
        waiting = deque([root])
        while waiting:
            name = waiting.popleft()
            for number, other in joined[name]:
                if other not in depths:
                    depths[other] = depths[name] + 1
                    branches[name].append(other)
                    used.add(number)
                    waiting.append(other)
    rows: dict[str, float] = {}
    n_rows = 0
    for root in roots:
        order = [root]
        for name in order:
            order += branches[name]
        stack = [root]
        while stack:  # leaves from above to below
            name = stack.pop()
            stack += reversed(branches[name])
            if not branches[name]:
                rows[name], n_rows = n_rows, n_rows + 1
        for name in reversed(order):
            if branches[name]:
                rows[name] = (rows[branches[name][0]] + rows[branches[name][-1]]) / 2
    return _Tree(depths, rows, frozenset(used))


def _columns(arrows: Sequence[Arrow], tree: _Tree, shown: Mapping[str, str]) -> list[float]:
    """Where each depth begins: behind the widest name and the longest label before it."""
    n_columns = max(tree.depths.values(), default=0) + 1
    names, labels = [0.0] * n_columns, [0.0] * n_columns
    for name, depth in tree.depths.items():
        names[depth] = max(names[depth], _width(shown[name]))
    for number in tree.arrows:
        arrow = arrows[number]
        depth = max(tree.depths[_key(arrow.start)], tree.depths[_key(arrow.end)])
        labels[depth] = max(labels[depth], _cells(_short(arrow.label)) * _LABEL_LETTER + _GAP)
    columns = [float(_MARGIN)]
    for depth in range(1, n_columns):
        columns.append(columns[-1] + names[depth - 1] + labels[depth])
    return columns


def _line(arrow: Arrow, in_tree: bool, tree: _Tree, columns: Sequence[float], shown: Mapping[str, str],
          middle: Callable[[str], float]) -> tuple[str, str]:
    """An arrow and its label: before the name that is farther to the right, or amid a dashed one."""
    start, end = _key(arrow.start), _key(arrow.end)
    left, right = (start, end) if tree.depths[start] <= tree.depths[end] else (end, start)
    x1 = columns[tree.depths[left]] + _width(shown[left])
    x2 = columns[tree.depths[right]]
    y1, y2 = middle(left), middle(right)
    label = escape(_short(arrow.label))
    if in_tree:
        length = _cells(_short(arrow.label)) * _LABEL_LETTER
        bend = x2 - length - 16
        turn = max(x1 + (bend - x1) * 0.5, x1)
        path = f"M{x1:.1f},{y1:.1f} C{turn:.1f},{y1:.1f} {turn:.1f},{y2:.1f} {bend:.1f},{y2:.1f} L{x2:.1f},{y2:.1f}"
        text = (x2 - length / 2 - 12, y2 - 4)
    else:
        x2 = columns[tree.depths[right]] + _width(shown[right])
        out = max(x1, x2) + 30 + abs(y2 - y1) * 0.15
        path = f"M{x1:.1f},{y1 + 6:.1f} C{out:.1f},{y1 + 6:.1f} {out:.1f},{y2 + 6:.1f} {x2:.1f},{y2 + 6:.1f}"
        text = ((x1 + x2) / 8 + out * 0.75, (y1 + y2) / 2 + 10)
    tip = "marker-end" if left == start else "marker-start"
    dashes = "" if in_tree else ' stroke-dasharray="4 3"'
    return (f'<path d="{path}" fill="none" stroke="{_SOFT}"{dashes} {tip}="url(#tip)"/>',
            f'<text x="{text[0]:.1f}" y="{text[1]:.1f}" font-size="11.5" text-anchor="middle" fill="{_SOFT}" '
            f'paint-order="stroke" stroke="{_GROUND}" stroke-width="3">{label}</text>')


def _short(text: str, longest: int = _LONGEST) -> str:
    text = readable(text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _key(name: str) -> str:
    """What spellings of a name share, as in a graph of facts: its words in one case."""
    return " ".join(re.findall(r"\w+", name.casefold())) or name


def _cells(text: str) -> int:
    """How many Latin letters wide a text is: East Asian ones take two."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _width(text: str) -> float:
    return _cells(text) * _LETTER + 2 * _PAD
