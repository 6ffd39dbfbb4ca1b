"""Pages of answers: the passage with the answer marked, and how likely each token begins or ends one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tickwise.core.paths import write_text_atomic
from tickwise.data.span_windows import Window
from tickwise.data.spans import SpanQuestion
from tickwise.report.answers import ShownAnswer, ShownPassage, answers_page
from tickwise.tasks.answer import Answer, Reader
from tickwise.tasks.answer_documents import DocumentAnswer, Span
from tickwise.training.span_reading import collate_windows, in_blocks

MOST_SHOWN = 100
"""Answers on one page."""
_AROUND = 2_000
"""Characters of a passage that are shown on each side of its answer."""
_TOKENS_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Places:
    """Tokens of a passage by their characters (T, 2), and how likely an answer begins and ends at each (T): the
    probability that the token's window has an answer times that of the place among the window's, the highest of all
    windows that the token is in."""

    characters: NDArray[np.int64]
    begins: NDArray[np.float64]
    ends: NDArray[np.float64]


@torch.no_grad()
def place_probabilities(reader: Reader, question: str, passage: str, start: int, end: int) -> Places:
    """Of the tokens that lie in characters ``start`` up to (not including) ``end`` of the passage; only the windows
    that have some of these are read."""
    found: dict[tuple[int, int], tuple[float, float]] = {}

    def touches(window: Window) -> bool:
        own = window.places[window.places[:, 1] > window.places[:, 0]]
        return len(own) > 0 and bool(own[0, 0] < end) and bool(own[-1, 1] > start)

    windows = filter(touches, reader.windows.each([SpanQuestion("0", question, passage, (), ())]))
    for block in in_blocks(windows, _TOKENS_AT_ONCE):
        ids_BT, lengths_B, segments_BT, _ = collate_windows(block, reader.windows.pad)
        scores_B2T = reader.module(ids_BT.to(reader.device), lengths_B.to(reader.device), segments_BT.to(reader.device))
        for window, scores_2T in zip(block, scores_B2T.cpu().double(), strict=True):
            own = np.flatnonzero(window.places[:, 1] > window.places[:, 0])
            has_answer = torch.sigmoid(-scores_2T[:, 0].sum())
            likely_2T = (has_answer * scores_2T[:, int(own[0]) : int(own[-1]) + 1].softmax(-1)).numpy()
            for at in own:
                a, b = int(window.places[at, 0]), int(window.places[at, 1])
                if a >= start and b <= end:
                    begins, ends = found.get((a, b), (0.0, 0.0))
                    i = int(at - own[0])
                    found[a, b] = max(begins, float(likely_2T[0, i])), max(ends, float(likely_2T[1, i]))
    places = sorted(found)
    return Places(np.array(places, dtype=np.int64).reshape(-1, 2), np.array([found[p][0] for p in places]),
                  np.array([found[p][1] for p in places]))


def shown_passage(reader: Reader | None, question: str, text: str, span: Span | None, *, where: str = "",
                  scores: Sequence[tuple[str, float]] = ()) -> ShownPassage:
    """What a page shows of a passage: its text around the answer, shaded where ``reader`` tells of its tokens."""
    centre = (span.start, span.end) if span is not None and span.text else (0, 0)
    first, last = max(0, centre[0] - _AROUND), min(len(text), centre[1] + _AROUND)
    tokens: tuple[tuple[int, int, float, float], ...] = ()
    if reader is not None:
        places = place_probabilities(reader, question, text, first, last)
        tokens = tuple((int(a) - first, int(b) - first, float(begins), float(ends)) for (a, b), begins, ends
                       in zip(places.characters, places.begins, places.ends, strict=True))
    return ShownPassage(text=text[first:last], where=where, scores=tuple(scores), start=centre[0] - first,
                        end=centre[1] - first, tokens=tokens, before=first, behind=len(text) - last)


def shown_answer(reader: Reader, question: str, passage: str, answer: Answer, where: str = "") -> ShownAnswer:
    """An answer from one passage."""
    return ShownAnswer(question, answer.text, (shown_passage(
        reader, question, passage, answer, where=where,
        scores=(("probability", answer.probability), ("margin over no answer", answer.margin))),))


def shown_document_answer(reader: Reader | None, answer: DocumentAnswer, threshold: float) -> ShownAnswer:
    """An answer from documents with the passages that were read; without any, with the nearest one."""
    passages = []
    for candidate in answer.candidates:
        scores = [("score", candidate.score), ("retrieval", candidate.hit.score), ("support", candidate.span.support)]
        if candidate.span.probability is not None:
            scores.append(("probability", candidate.span.probability))
        passages.append(shown_passage(reader, answer.question, candidate.hit.passage.text, candidate.span,
                                      where=candidate.hit.where, scores=scores))
    if not passages and answer.nearest is not None:
        passages.append(shown_passage(None, answer.question, answer.nearest.passage.text, None,
                                      where=answer.nearest.where, scores=(("retrieval", answer.nearest.score),)))
    note = f"found from a score of {threshold:.2f} on"
    return ShownAnswer(answer.question, answer.text, tuple(passages), note)


def write_answers(path: Path, answers: Sequence[ShownAnswer], title: str, n_left_out: int = 0) -> None:
    """Write the page; ``OutputError`` when ``path`` cannot be written."""
    write_text_atomic(path, answers_page(title, answers, n_left_out))
