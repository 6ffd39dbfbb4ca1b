"""Questions made from plain text, to practise finding spans on before there are real ones.

A sentence of a passage becomes the question with a few of its words taken out; those are the answer, where they stand
in the passage (after Dhingra et al. 2018, "Simple and effective semi-supervised question answering", and Lewis et al.
2019, "Unsupervised question answering by cloze translation"). Words of the question are left out at random too, so that
no reader learns to look for whole sentences.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tickwise.core.errors import DataError
from tickwise.data.spans import SpanQuestion
from tickwise.text.segment import HAN_RUN, cut_chinese, has_chinese
from tickwise.text.words import Place, split_sentences, split_words

_FREQUENT, _FREQUENT_SHARE = 150, 0.05
"""So many of the commonest words, at most that share of the vocabulary, neither begin nor end an answer."""
_LONGEST_ANSWER, _LONGEST_QUESTION = 8, 24
_CHARACTERS = 300
"""Of text read for each question."""
_KEPT = 0.7
"""Share of a question's words that stay."""
_CLAUSE_ENDS = frozenset("，,;；:：。.!！?？")


def cloze_questions(texts: Sequence[str], n: int, *, passage_words: int, seed: int) -> list[SpanQuestion]:
    """``n`` questions about passages of about ``passage_words`` words (Chinese words are jieba's), drawn at random from
    ``texts`` by their length. ``DataError`` when no text has a sentence to ask about."""
    chooser = np.random.default_rng(seed)
    chosen, size = [], 0
    for number in chooser.permutation(len(texts)):  # of a large corpus as much as the questions can be about
        if size >= _CHARACTERS * n:
            break
        chosen.append(texts[number])
        size += len(texts[number])
    placed = [(text, _words(text)) for text in chosen if text.strip()]
    placed = [(text, words) for text, words in placed if len(words) >= 8]
    if not placed:
        raise DataError("no text with a sentence of 8 words to make questions from")
    counts = Counter(text[w.start : w.end].casefold() for text, words in placed for w in words)
    frequent = {word for word, _ in counts.most_common(min(_FREQUENT, int(_FREQUENT_SHARE * len(counts))))}
    shares = np.array([len(words) for _, words in placed], dtype=np.float64)
    shares /= shares.sum()
    questions: list[SpanQuestion] = []
    tries = 0
    while len(questions) < n:
        if tries > 20 * n + 100:
            raise DataError(f"only {len(questions):,} of {n:,} questions could be made of this text; give more of it")
        tries += 1
        text, words = placed[int(chooser.choice(len(placed), p=shares))]
        begin = int(chooser.integers(max(1, len(words) - passage_words + 1)))
        made = _question(text, words[begin : begin + passage_words], frequent, chooser)
        if made is not None:
            asked, passage, place = made
            questions.append(SpanQuestion(f"cloze-{len(questions)}", asked, passage, (place,),
                                          (passage[place[0] : place[1]],)))
    return questions


def _words(text: str) -> list[Place]:
    """Words and marks; runs of Han characters are cut into jieba's words."""
    if not has_chinese(text):
        return split_words(text)
    words: list[Place] = []
    at = 0
    for run in HAN_RUN.finditer(text):
        words += [Place(at + p.start, at + p.end) for p in split_words(text[at : run.start()])]
        start = run.start()
        for word in cut_chinese(run.group()):
            words.append(Place(start, start + len(word)))
            start += len(word)
        at = run.end()
    return words + [Place(at + p.start, at + p.end) for p in split_words(text[at:])]


def _question(text: str, words: list[Place], frequent: set[str],
              chooser: np.random.Generator) -> tuple[str, str, tuple[int, int]] | None:
    """A question, its passage and the answer's place in it; None where the drawn place is no good one."""
    sentences = [s for s in split_sentences(text, words) if len(s) >= 5]
    if not sentences:
        return None
    sentence = sentences[int(chooser.integers(len(sentences)))]
    if len(sentence) > _LONGEST_QUESTION:
        cut = int(chooser.integers(len(sentence) - _LONGEST_QUESTION + 1))
        sentence = sentence[cut : cut + _LONGEST_QUESTION]
    spelt = [text[w.start : w.end] for w in sentence]
    content = [word[0].isalnum() and word.casefold() not in frequent for word in spelt]
    begins = [i for i, is_content in enumerate(content) if is_content]
    if len(begins) < 2:
        return None
    first = begins[int(chooser.integers(len(begins)))]
    length = min(int(chooser.geometric(0.35)), _LONGEST_ANSWER)
    last = first
    for i in range(first, min(first + length, len(spelt))):
        if spelt[i] in _CLAUSE_ENDS:
            break
        if content[i]:
            last = i
    rest = [i for i in range(len(spelt)) if not first <= i <= last and spelt[i][0].isalnum()]
    kept = [i for i in rest if chooser.random() < _KEPT]
    if not any(content[i] for i in kept):
        return None
    joint = "" if has_chinese(text) else " "
    asked = joint.join(spelt[i] for i in kept)
    start = words[0].start
    passage = text[start : words[-1].end]
    return asked, passage, (sentence[first].start - start, sentence[last].end - start)
