"""Terms of a text: its content words, in English, Chinese or both, and the runs in which they stand together."""

import re
from typing import NamedTuple

from tickwise.text.segment import SEPARATOR, segment_chinese

_TOKEN = re.compile(rf"[^\W_]+(?:['’&-][^\W_]+)*|[^\s{SEPARATOR}]|\n")
_ENGLISH = """a about above after again against ago all almost along already also although always am among an and
another any anyone anything are aren't around as at away back be became because become been before behind being
below best better between both but by came can can't cannot come could couldn't did didn't do does doesn't doing
don't done down during each either else enough even ever every everyone everything far few first for from further
get gets getting give go goes going gone good got great had happen happened hadn't has hasn't have haven't having he
he'll he's hello her here here's hers herself hi him himself his how however i i'd i'll i'm i've if in indeed
instead into is isn't it it's its itself just keep kind know last lately later least less let let's like little long
look lot made make makes making many may maybe me mean might mine more most mr mrs ms much must my myself near need
needs never new next no nor not nothing now of off often oh ok okay old on once one only onto or other others our
ours ourselves out over own per perhaps please put quite rather really right said same saw say saying says see seem
seems seen several shall she she's should shouldn't since so some someone something sometimes soon still such sure
take taken than thank thanks that that's the their theirs them themselves then there there's therefore these they
they're they've thing things think this those though through thus to together too took toward towards try two under
until up upon us use used uses using usually very want wants was wasn't way we we'll we're we've well went were
weren't what what's when where whether which while who whole whom whose why will with within without won't would
wouldn't yeah yes yet you you'd you'll you're you've your yours yourself yourselves"""
_CHINESE = """的 了 是 在 和 与 或 及 我 你 他 她 它 我们 你们 他们 她们 它们 这 那 这个 那个 这些 那些 这样 那样
这里 那里 这种 那种 一个 一种 一些 一样 一直 一定 一般 没有 不是 就是 还是 可以 可能 能够 应该 需要 因为 所以 但是
但 而且 而 如果 虽然 然而 并 并且 以及 以 于 对 对于 关于 由 由于 从 到 向 往 把 被 让 使 给 为 为了 因此 之 之后
之前 以后 以前 以来 其 其中 其他 其它 此 此外 时 时候 当 当时 后 前 中 里 上 下 内 外 间 个 们 也 都 就 又 再 还 很
更 最 太 非常 十分 已 已经 曾 曾经 正在 将 将会 会 要 想 去 来 说 做 有 有些 有的 无 不 没 吗 呢 吧 啊 呀 哦 嗯 什么
怎么 怎样 如何 为什么 哪 哪里 哪些 谁 多少 几 多 少 大 小 各 每 每个 某 某些 任何 所有 全部 许多 很多 不同 同 同时
同样 相同 只 只有 只是 仅 甚至 尤其 特别 比较 左右 大约 约 第一 第二 自己 本 该 等 等等 例如 比如 认为 表示 进行
成为 作为 称为 包括 使用 通过 根据 按照 随着 除了 不过 不能 不会 不要 或者 或是 之间 方面 出现 开始 最后 现在 目前
今天 部分"""
STOPWORDS = frozenset(_ENGLISH.split()) | frozenset(_CHINESE.split())


class Term(NamedTuple):
    """A content word: characters ``start`` up to (not including) ``end``, and the key that its forms share."""

    start: int
    end: int
    key: str


def key_of(word: str) -> str:
    """The word without upper case, and without an English plural's s."""
    key = word.casefold().replace("’", "'").removesuffix("'s")
    if key.isascii() and len(key) > 3 and key.endswith("s") and key[-2] not in "sui":
        return key[:-1]
    return key


def content_runs(text: str) -> list[list[Term]]:
    """The content words of ``text`` in runs: what no stopword, number, punctuation or line end comes between.

    Chinese words are rjieba's; single Chinese characters and Latin letters are no content words.
    """
    marked = segment_chinese(text.replace(SEPARATOR, " "))
    runs: list[list[Term]] = [[]]
    n_marks, at = 0, 0
    for match in _TOKEN.finditer(marked):
        n_marks += marked.count(SEPARATOR, at, match.start())
        at = match.start()
        word = match.group()
        bare = word.casefold().replace("’", "'")
        if len(word) < 2 or bare in STOPWORDS or not any(c.isalpha() for c in word):
            if runs[-1]:
                runs.append([])
            continue
        runs[-1].append(Term(match.start() - n_marks, match.end() - n_marks, key_of(word)))
    return runs if runs[-1] else runs[:-1]
