"""Conversations as tokens, by a chat template in Hugging Face's format (Jinja, kept with the tokenizer).

Templates run in Jinja's sandbox, with what transformers gives them. Names of special tokens that are written in a
message stay text: nobody who writes one can end a turn, or begin another's.
"""

import datetime
import functools
import json
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tokenizers
from tickwise.core.errors import CheckpointError, DataError
from tickwise.tokenizers.marks import Marks
from tickwise.tokenizers.tokenizer import END_IDS, Tokenizer, token_name

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, str]
ROLES = ("system", "user", "assistant")
TURN_BEGINS, TURN_ENDS = "<|im_start|>", "<|im_end|>"
# ChatML. What stands between the generation tags is the assistant's own, for programs that ask.
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""
_PROBE = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\uf8fe"}]
"""A conversation whose answer is found again in whatever the template makes of it."""


def with_chat(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer of the same ids that has the marks of turns and a template besides; the end of a turn becomes what a
    text ends with, and what it ended with before goes on ending answers. One that has a template stays as it is."""
    if has_chat(tokenizer):
        return tokenizer
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([TURN_BEGINS, TURN_ENDS])
    ends = [*tokenizer.end_ids, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])]
    return Tokenizer(backend, tokenizer.kind, tokenizer.config | {
        "chat_template": TEMPLATE, "eos_token": TURN_ENDS, END_IDS: list(dict.fromkeys(ends))})


def has_chat(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a chat template."""
    return bool(tokenizer.config.get("chat_template"))


def _template(tokenizer: Tokenizer) -> str:
    """The template; the one named default, where there are several. ``CheckpointError`` without one."""
    given = tokenizer.config.get("chat_template")
    if isinstance(given, list):  # as older configs keep several
        given = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, dict)}
    if isinstance(given, dict):
        names = ", ".join(map(str, given)) or "nothing"
        given = given.get("default")
        if not isinstance(given, str):
            raise CheckpointError(f"the tokenizer has several chat templates ({names}) and none of them is the "
                                  "default; write the one to use into chat_template.jinja")
    if not isinstance(given, str) or not given:
        raise CheckpointError("the tokenizer has no chat template; fine-tune the model on conversations first: "
                              "tickwise adapt MODEL --task chat")
    return given


def render(tokenizer: Tokenizer, messages: Sequence[Message], *, reply: bool = False) -> str:
    """The conversation as the template writes it; with ``reply``, up to where the assistant's next turn begins.

    ``CheckpointError`` without a template or for one that cannot be used, ``DataError`` for messages that it refuses.
    """
    template = _compiled(_template(tokenizer))
    named = {key: name for key, value in tokenizer.config.items()
             if key.endswith("_token") and (name := token_name(value)) is not None}
    try:
        return template.render(messages=[dict(message) for message in messages], tools=None, documents=None,
                               add_generation_prompt=reply, **named)
    except Exception as problem:  # what a template does with a message can fail in any way
        reason = str(problem) or type(problem).__name__
        raise DataError(f"the chat template cannot write this conversation: {reason}") from None


@functools.cache
def _compiled(template: str) -> "jinja2.Template":
    """As transformers compiles it (``utils/chat_template_utils.py``)."""
    import jinja2
    from jinja2 import ext, nodes, sandbox
    from jinja2.parser import Parser

    class Generation(ext.Extension):
        """``{% generation %}`` says which part is the assistant's and changes nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> str:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | str | None = None,
                separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": now}
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as problem:
        raise CheckpointError(f"the chat template cannot be read: {problem}") from None


@functools.cache
def _literals(template: str) -> str:
    """What the template writes by itself, piece by piece."""
    from jinja2 import nodes

    tree = _compiled(template).environment.parse(template)
    pieces = [node.data for node in tree.find_all(nodes.TemplateData)]
    return "\0".join([*pieces, *(node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str))])


_MARKS: "weakref.WeakKeyDictionary[Tokenizer, Marks]" = weakref.WeakKeyDictionary()


def _marks(tokenizer: Tokenizer) -> Marks:
    """The tokens that the template alone may write: special ones, and others that stand in it (``<think>``)."""
    if tokenizer not in _MARKS:
        literals = _literals(_template(tokenizer))
        _MARKS[tokenizer] = Marks(tokenizer, lambda name: name in literals and not name.isspace())
    return _MARKS[tokenizer]


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message], *, reply: bool = False) -> list[int]:
    """The ids of ``render``, with marks where the template puts them and nowhere else. An assistant may write marks
    that are not special, such as ``<think>``."""
    marks = _marks(tokenizer)
    guarded = [{name: value if name == "role" else marks.as_text(value, special_only=message["role"] == "assistant")
                for name, value in message.items()} for message in messages]
    return marks.encode(render(tokenizer, guarded, reply=reply))


def turn_end(tokenizer: Tokenizer) -> int | None:
    """The id of the mark that the template writes behind what the assistant says, if there is one."""
    try:
        _, found, behind = render(tokenizer, _PROBE).rpartition(_PROBE[1]["content"])
    except DataError:  # it wants other conversations
        return None
    return _marks(tokenizer).first(behind.lstrip()) if found else None


def answer_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that end an answer besides the end-of-text token: the template's, and what the model's own settings
    name."""
    own = turn_end(tokenizer)
    return tuple(dict.fromkeys([*([] if own is None else [own]), *tokenizer.end_ids]))


def encode_turns(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """The ids of a conversation, and which of them the assistant writes: its words and the end of its turns.

    ``CheckpointError`` for a template whose later turns change what it wrote of earlier ones.
    """
    ids = encode_chat(tokenizer, messages)
    own, last = [False] * len(ids), turn_end(tokenizer)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = encode_chat(tokenizer, messages[:number], reply=True)
        after = encode_chat(tokenizer, messages[: number + 1])
        end = len(after)
        if last in after[len(before) :]:  # what stands behind the end of a turn, the template writes
            end = len(before) + after[len(before) :].index(last) + 1
        if ids[: len(before)] != before or ids[:end] != after[:end]:
            raise CheckpointError("the chat template writes earlier turns differently when others follow, so that it "
                                  "cannot be learned from whole conversations; use another one")
        own[len(before) : end] = [True] * (end - len(before))
    return ids, own
