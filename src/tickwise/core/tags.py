"""Tags of entities: a prefix and a type (``B-PER``), and what may follow what in the scheme IOBES."""


def split_tag(tag: str) -> tuple[str, str]:
    """``B-PER`` as ``("B", "PER")``; ``O`` as ``("O", "")``."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def may_follow(before: str | None, after: str | None) -> bool:
    """Whether IOBES allows tag ``after`` right after ``before``; ``None`` is the border of a sentence."""
    prefix, kind = split_tag(before or "O")
    next_prefix, next_kind = split_tag(after or "O")
    if prefix in ("B", "I"):  # the entity goes on
        return next_prefix in ("I", "E") and next_kind == kind
    return next_prefix in ("O", "B", "S")
