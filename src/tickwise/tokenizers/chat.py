"""Conversations as tokens, by a chat template in Hugging Face's format (Jinja, kept with the tokenizer).

Templates run in Jinja's sandbox, with what transformers gives them. Names of special tokens that are written in a
message stay text: nobody who writes one can end a turn, or begin another's.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tokenizers
from tickwise.core.errors import CheckpointError, DataError
from tickwise.tokenizers.tokenizer import Tokenizer

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
_GUARDS = range(0xE000, 0xF8FF)  # characters for private use


def with_chat(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer of the same ids that has the marks of turns and a template besides; the end of a turn becomes what a
    text ends with. One that has a template stays as it is."""
    if has_chat(tokenizer):
        return tokenizer
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([TURN_BEGINS, TURN_ENDS])
    return Tokenizer(backend, tokenizer.kind, tokenizer.config | {"chat_template": TEMPLATE, "eos_token": TURN_ENDS})


def has_chat(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a chat template."""
    return isinstance(tokenizer.config.get("chat_template"), str)


def render(tokenizer: Tokenizer, messages: Sequence[Message], *, reply: bool = False) -> str:
    """The conversation as the template writes it; with ``reply``, up to where the assistant's next turn begins.

    ``CheckpointError`` without a template or for one that cannot be used, ``DataError`` for messages that it refuses.
    """
    import jinja2

    template = tokenizer.config.get("chat_template")
    if not isinstance(template, str):
        raise CheckpointError("the tokenizer has no chat template; fine-tune the model on conversations first: "
                              "tickwise adapt MODEL --task chat")
    named = {key: value for key, value in tokenizer.config.items() if key.endswith("_token") and isinstance(value, str)}
    try:
        return _compiled(template).render(messages=list(messages), tools=None, documents=None,
                                          add_generation_prompt=reply, **named)
    except jinja2.TemplateError as problem:
        raise DataError(f"the chat template cannot write this conversation: {problem}") from None


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

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as problem:
        raise CheckpointError(f"the chat template cannot be read: {problem}") from None


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message], *, reply: bool = False) -> list[int]:
    """The ids of ``render``, with marks where the template puts them and nowhere else."""
    added = tokenizer.backend.get_added_tokens_decoder().items()
    special = {token.content: number for number, token in added if token.special}
    marks = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
    if not any(marks.search(value) for message in messages for value in message.values()):
        return tokenizer.encode(render(tokenizer, messages, reply=reply))
    written = "".join(value for message in messages for value in message.values())
    guard = next(chr(code) for code in _GUARDS if chr(code) not in written)

    stand_in = next(chr(code) for code in _GUARDS if chr(code) not in written and chr(code) != guard)
    short = {mark for mark in special if len(mark) == 1}
    if len(short) > 1:
        raise CheckpointError("the tokenizer has several special tokens of one character; chats cannot keep them apart "
                              "from what people write")

    def broken(text: str) -> str:
        return marks.sub(lambda mark: stand_in if mark[0] in short else mark[0][0] + guard + mark[0][1:], text)

    def whole(text: str) -> str:
        return text.replace(guard, "").replace(stand_in, next(iter(short), ""))

    guarded = [{name: broken(value) for name, value in message.items()} for message in messages]
    text, ids, done = render(tokenizer, guarded, reply=reply), list[int](), 0
    for mark in marks.finditer(text):
        ids += _plain(tokenizer, whole(text[done : mark.start()]))
        ids.append(special[mark.group()])
        done = mark.end()
    return ids + _plain(tokenizer, whole(text[done:]))


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_plain([text])[0] if text else []


def encode_turns(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """The ids of a conversation, and which of them the assistant writes: its words and the end of its turns.

    ``CheckpointError`` for a template whose later turns change what it wrote of earlier ones.
    """
    ids = encode_chat(tokenizer, messages)
    own = [False] * len(ids)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = encode_chat(tokenizer, messages[:number], reply=True)
        after = encode_chat(tokenizer, messages[: number + 1])
        if ids[: len(before)] != before or ids[: len(after)] != after:
            raise CheckpointError("the chat template writes earlier turns differently when others follow, so that it "
                                  "cannot be learned from whole conversations; use another one")
        end = len(after)
        if tokenizer.eos_id in after[len(before) :]:  # what stands behind the end of a turn, the template writes
            end = len(before) + after[len(before) :].index(tokenizer.eos_id) + 1
        own[len(before) : end] = [True] * (end - len(before))
    return ids, own
