"""What in an English sentence says that it may not be so: doubt, conditions, what others say, dreams."""

import re

from tickwise.text.phrases import tokens_of

_UNSURE = re.compile(
    r"\b(?:if|unless|whether|perhaps|possibly|probably|maybe|allegedly|reportedly|supposedly|purportedly|apparently|"
    r"presumably|hypothetically|in \S+ (?:view|opinion)|in the (?:view|opinion|eyes) of|according to|rumou?red|"
    r"no longer|almost|nearly|virtually|practically|neither|nor|nobody|hardly|barely|rarely|seldom|"
    r"not(?: \w+)? (?:only|just|merely|simply|solely|necessarily|exclusively|entirely|completely|yet|both|until)|"
    r"(?:not|never)\b.* (?:until|till|unless|before)|respectively|whenever|wherever|in case of|in the event of|"
    r"except|excepting|apart from|other than|with the exception|"
    r"(?:as|so) long as|provided that|providing that|(?:as|so) soon as|"
    r"in (?:\w+ ){0,2}(?:dreams?|nightmares?|fantas(?:y|ies)|imagination|parallel \w+|fictional \w+|imaginary \w+|"
    r"alternat(?:e|ive) \w+)|in (?:the|this|that|his|her|its|an?|one) (?:\w+ ){0,2}"
    r"(?:novel|story|myth|legend|tale|fable)|"
    r"claimed|claims|argued|argues|believed?|believes|thought|supposed|alleged|would|n['’]t have)\b|"
    r"\b(?:St|Mr|Mrs|Dr|No)$", re.IGNORECASE)
_CONDITION = re.compile(r"\b(?:when|once|provided)\b(?P<clause>[^,]*)", re.IGNORECASE)
_PAST_WORDS = frozenset({"was", "were", "had", "did", "became", "remained"})
_SPEECH = re.compile(r"[“\"](?:[^\"”]*[,.!?]|(?:\S+\s+){5,}\S+)[”\"]")
_CUT = re.compile(r"[A-Z]\w* [A-Z]$")  # an initial, whose full stop ended the sentence


def is_unsure(text: str) -> bool:
    """Whether a sentence says nothing that holds without condition."""
    return bool(_UNSURE.search(text) or _SPEECH.search(text) or _CUT.search(text)) or _depends(text)


def _depends(text: str) -> bool:
    """Whether something holds only when something else does: "when" and the like with a clause that is not of the
    past."""
    for found in _CONDITION.finditer(text):
        words = tokens_of(found["clause"].strip().lower())
        if found[0].lower().startswith("provided") and text[: found.start()].strip(" ,") and not any(
                token.text in ("is", "are", "has") or token.may_be("third") for token in words):
            continue  # "provided the town with water"
        if not any(token.text in _PAST_WORDS or token.may_be("past") for token in words):
            return True
    return False
