"""Entities in colour: for the terminal, and as one self-contained HTML page."""

import zlib
from collections.abc import Sequence
from html import escape
from typing import Protocol

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HUES = (210, 25, 130, 285, 340, 175, 50, 250)
_TERMINAL = (34, 33, 32, 35, 31, 36)
_CSS = """
:root { color-scheme: light dark; --ground: #fbfaf8; --ink: #1d2129; --soft: #5c6470; --line: #e3e1dc; --light: 88%;
  --deep: 30%; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --ink: #e8e6e1; --soft: #9aa3b0; --line: #313741;
  --light: 24%; --deep: 82%; } }
body { margin: 0; background: var(--ground); color: var(--ink); font: 17px/1.9 system-ui, "Noto Sans", sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.4rem; line-height: 1.3; } p.key { color: var(--soft); font-size: .9rem; }
p.text { white-space: pre-wrap; overflow-wrap: anywhere; border-bottom: 1px solid var(--line); padding: .5rem 0;
  margin: 0; }
mark { background: hsl(var(--hue) 70% var(--light)); color: inherit; border-radius: .3rem; padding: .1rem .3rem; }
mark small { color: hsl(var(--hue) 60% var(--deep)); font-weight: 650; font-size: .68em; margin-inline-start: .35em;
  letter-spacing: .02em; }
"""


class Found(Protocol):
    """An entity in a text: characters ``start`` up to (not including) ``end``, its type, and how sure the model is."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def probability(self) -> float | None: ...


def _place(kind: str, types: Sequence[str], n: int) -> int:
    """The same colour for a type in every text, and another one for each of the first ``n`` types."""
    return (types.index(kind) if kind in types else zlib.crc32(kind.encode())) % n


def _pieces(text: str, entities: Sequence[Found]) -> list[tuple[str, Found | None]]:
    """``text`` in order: what is in an entity, with it, and what is not."""
    pieces: list[tuple[str, Found | None]] = []
    at = 0
    for entity in entities:
        pieces += [(text[at : entity.start], None), (text[entity.start : entity.end], entity)]
        at = entity.end
    return [*pieces, (text[at:], None)]


def terminal_text(text: str, entities: Sequence[Found], types: Sequence[str], colour: bool) -> str:
    """``text`` with each entity in brackets behind which its type stands, in colour where the terminal has it."""
    out = []
    for piece, entity in _pieces(text, entities):
        if entity is None:
            out.append(piece)
        elif colour:
            code = _TERMINAL[_place(entity.type, types, len(_TERMINAL))]
            out.append(f"\033[{code};1m{piece}\033[0m\033[{code}m/{entity.type}\033[0m")
        else:
            out.append(f"[{piece}]/{entity.type}")
    return "".join(out)


def entity_page(texts: Sequence[str], entities: Sequence[Sequence[Found]], types: Sequence[str], title: str) -> str:
    """The HTML of a page with every text and its entities marked."""
    used = [kind for kind in types if any(entity.type == kind for found in entities for entity in found)]
    key = " ".join(f'<mark style="--hue:{_hue(kind, types)}">{escape(kind)}</mark>' for kind in used)
    body = "\n".join(f'<p class="text" dir="auto">{_marked(text, found, types)}</p>'
                     for text, found in zip(texts, entities, strict=True))
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy" '
            f'content="{_POLICY}"><title>{escape(title)} – tickwise</title><style>{_CSS}</style></head><body><main>'
            f'<h1>{escape(title)}</h1><p class="key">{key or "no entities"}</p>\n{body}\n</main></body></html>\n')


def _hue(kind: str, types: Sequence[str]) -> int:
    return _HUES[_place(kind, types, len(_HUES))]


def _marked(text: str, entities: Sequence[Found], types: Sequence[str]) -> str:
    out = []
    for piece, entity in _pieces(text, entities):
        if entity is None:
            out.append(escape(piece))
            continue
        sure = f' title="probability {entity.probability:.2f}"' if entity.probability is not None else ""
        out.append(f'<mark style="--hue:{_hue(entity.type, types)}"{sure}>{escape(piece)}'
                   f"<small>{escape(entity.type)}</small></mark>")
    return "".join(out)
