"""The page of answers: passages with the answer marked and their tokens shaded by how likely an answer begins or ends
there. Nothing is loaded, everything is escaped."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tickwise.report.page import POLICY
from tickwise.report.style import CSS

_BEGIN, _END = "30,110,200", "215,110,20"
_LEAST = 0.02
"""Share of a passage's highest probability that a token needs to be shaded."""
_CSS = f"""
.passage {{ margin: .6rem 0 1.2rem; }} .passage p {{ margin: .2rem 0; max-width: none; }}
.passage .words {{ white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; }}
.passage i {{ font-style: normal; border-radius: .2rem; padding: .12rem 0; }}
.passage mark {{ color: inherit; background: none; border-bottom: .2rem solid var(--accent); font-weight: 650; }}
.answer {{ font-size: 1.15rem; }} .scores {{ color: var(--soft); font-size: .85rem; }}
.keys span {{ border-radius: .2rem; padding: .12rem .4rem; margin-right: .6rem; }}
.begin {{ background: rgba({_BEGIN},.6); }} .end {{ background: rgba({_END},.6); }}
"""


@dataclass(frozen=True)
class ShownPassage:
    """A piece of a passage: characters ``start`` up to (not including) ``end`` of ``text`` answer (none where they are
    the same). ``tokens`` are (start, end, how likely an answer begins there, ends there). ``before`` and ``behind``:
    characters of the passage that are left out."""

    text: str
    where: str = ""
    scores: tuple[tuple[str, float], ...] = ()
    start: int = 0
    end: int = 0
    tokens: tuple[tuple[int, int, float, float], ...] = ()
    before: int = 0
    behind: int = 0


@dataclass(frozen=True)
class ShownAnswer:
    """A question, its answer ("" for none), and the passages that were read, the best first."""

    question: str
    answer: str
    passages: tuple[ShownPassage, ...]
    note: str = ""


def answers_page(title: str, answers: Sequence[ShownAnswer], n_left_out: int = 0) -> str:
    """The page's HTML. ``n_left_out``: further answers, of which the page only tells how many they are."""
    shaded = any(passage.tokens for answer in answers for passage in answer.passages)
    keys = ('<p class="keys"><span class="begin">an answer begins here</span><span class="end">ends here</span>'
            "<small>the darker, the likelier within the passage; point at a token for the figures</small></p>"
            if shaded else "")
    more = f"<p>{n_left_out:,} more answers are not shown.</p>" if n_left_out else ""
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)} – tickwise</title><style>{CSS}{_CSS}</style></head><body><main>"
        f'<header><p class="brand">tickwise report</p><h1>{escape(title)}</h1></header>{keys}',
        *map(_answer, answers), more, "</main></body></html>\n",
    ])


def _answer(answer: ShownAnswer) -> str:
    told = f'<strong dir="auto">{escape(answer.answer)}</strong>' if answer.answer else "not found"
    note = f" <small>{escape(answer.note)}</small>" if answer.note else ""
    return (f'<section><h2 dir="auto">{escape(answer.question)}</h2><p class="answer">{told}{note}</p>'
            f"{''.join(map(_passage, answer.passages))}</section>")


def _passage(passage: ShownPassage) -> str:
    scores = " · ".join(f"{name} {value:.3f}" for name, value in passage.scores)
    before = f"<small>… {passage.before:,} characters before </small>" if passage.before else ""
    behind = f"<small> {passage.behind:,} characters behind …</small>" if passage.behind else ""
    return (f'<div class="card passage"><p class="scores">{escape(passage.where)}{" · " if passage.where else ""}'
            f'{escape(scores)}</p><p class="words" dir="auto">{before}{_words(passage)}{behind}</p></div>')


def _words(passage: ShownPassage) -> str:
    """The text cut where tokens and the answer begin and end, each piece shaded."""
    most = max((max(begins, ends) for *_, begins, ends in passage.tokens), default=0.0) or 1.0
    has_answer = passage.end > passage.start
    cuts = {0, len(passage.text)} | ({passage.start, passage.end} if has_answer else set())
    shades: dict[int, tuple[int, float, float]] = {}
    for start, end, begins, ends in passage.tokens:
        if max(begins, ends) >= _LEAST * most:
            cuts |= {start, end}
            shades[start] = (end, begins, ends)
    places = sorted(cuts)
    parts, until, shade = [], 0, ""
    for start, end in itertools.pairwise(places):
        if has_answer and start == passage.start:
            parts.append("<mark>")
        if start in shades:
            until, begins, ends = shades[start]
            shade = _shade(begins, ends, most)
        piece = escape(passage.text[start:end])
        parts.append(f"<i {shade}>{piece}</i>" if start < until else piece)
        if has_answer and end == passage.end:
            parts.append("</mark>")
    return "".join(parts)


def _shade(begins: float, ends: float, most: float) -> str:
    """Left half: beginning, right half: end. Square roots, so that the less likely places are seen beside the best."""
    left, right = (0.75 * math.sqrt(value / most) for value in (begins, ends))
    return (f'style="background:linear-gradient(90deg,rgba({_BEGIN},{left:.2f}) 50%,rgba({_END},{right:.2f}) 50%)" '
            f'title="begins {begins:.3f}, ends {ends:.3f}"')
