"""What a Transformer looks at: the attention of every head of every layer on a text, as a page or a picture.

Decoders and encoders: tickwise attention MODEL "text" --out map.html

Encoder–decoders: the same, with the translation that the model writes, or the one that --target gives.
"""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core import console
from tickwise.core.errors import ConfigError, DataError
from tickwise.core.paths import check_file_output

if TYPE_CHECKING:
    from tickwise.evaluation.attention import AttentionMap
    from tickwise.models.encoder_decoder import EncoderDecoder
    from tickwise.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model or run directory of a decoder, an encoder or an encoder–decoder."""
    text: tyro.conf.Positional[str]
    """The text to read."""
    target: str | None = None
    """Of an encoder–decoder: the text that it is made to write; left out, the one that it finds (beam 4)."""
    out: Path = Path("attention.html")
    """Where the page (.html) or the picture (.svg, .png) goes."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""


def run(arguments: Arguments) -> int:
    from tickwise.interop.directory import load_module, resolve_model_path
    from tickwise.models.encoder_decoder import EncoderDecoder
    from tickwise.report.attention import check_ending
    from tickwise.tokenizers.tokenizer import Tokenizer

    check_ending(arguments.out)
    check_file_output(arguments.out)
    if not arguments.text.strip():
        raise DataError("the text is empty; give some to look at")
    folder = resolve_model_path(arguments.model)
    module = load_module(folder, device=arguments.device)
    tokenizer = Tokenizer.load(folder)
    texts = [arguments.text]
    if isinstance(module, EncoderDecoder):
        maps, target = _translated(module, tokenizer, arguments.text, arguments.target)
        texts.append(target)
    elif arguments.target is not None:
        raise ConfigError(f"--target: has a meaning for an encoder–decoder only, not for a {type(module).__name__}")
    else:
        maps = _maps_of_text(module, tokenizer, arguments.text)
    write_maps(arguments.out, maps, model=str(arguments.model), texts=texts)
    if arguments.json:
        shown: dict[str, object] = {"out": str(arguments.out), "texts": texts, "maps": [map_json(one) for one in maps]}
        if isinstance(module, EncoderDecoder):
            shown["alignment"] = alignment_json(maps)
        print(json.dumps(shown, ensure_ascii=False))
    return 0


def _translated(
    module: "EncoderDecoder", tokenizer: "Tokenizer", text: str, target: str | None
) -> tuple[list["AttentionMap"], str]:
    from tickwise.tasks.text_to_text import TextToText

    model, longest = TextToText(module, tokenizer), module.config.context_length
    if target is not None and (n := len(tokenizer.encode_sources([target])[0])) > longest:
        raise ConfigError(f"--target: it has {n:,} tokens and the model writes at most {longest:,}; shorten it")
    found = model.translate([text])[0] if target is None else target
    return model.attention(text, found), found


def _maps_of_text(module: object, tokenizer: "Tokenizer", text: str) -> list["AttentionMap"]:
    from tickwise.data.encoder_inputs import TextIds
    from tickwise.engine.requests import encode_prompt
    from tickwise.evaluation.attention import decoder_maps, encoder_maps
    from tickwise.models.decoder import Decoder
    from tickwise.models.encoder import Encoder

    if isinstance(module, Decoder):
        return decoder_maps(module, tokenizer, encode_prompt(tokenizer, text))
    if isinstance(module, Encoder):
        inputs = TextIds(tokenizer, module.config.context_length)
        (ids,) = inputs.encode([text])
        if inputs.n_cut:
            console.say(f"the text is longer than the {inputs.longest:,} tokens that the model reads, and was cut")
        return encoder_maps(module, tokenizer, ids.tolist())
    raise ConfigError(f"a {type(module).__name__} has no attention to look at; give a decoder, an encoder or an "
                      "encoder–decoder")


def write_maps(out: Path, maps: list["AttentionMap"], *, model: str, texts: list[str]) -> None:
    """The page or picture of ``maps``, and a line that says where it is."""
    from tickwise.report.attention import Map, Pictured, write_attention

    shown = [Map(one.name, one.queries, one.keys, one.weights_LHTS.numpy(), one.copied,
                 one.pharaoh() if one.name == "words" else "") for one in maps]
    command = shlex.join(["tickwise", *sys.argv[1:]])
    write_attention(out, Pictured(model, texts, shown, command))
    console.say(f"attention: {out}")


def map_json(one: "AttentionMap") -> dict[str, object]:
    """The mean over layers and heads, and the shape of all; of a pointer, how much each token is copied."""
    layers, heads = one.weights_LHTS.shape[:2]
    return {"name": one.name, "queries": list(one.queries), "keys": list(one.keys), "layers": layers, "heads": heads,
            "mean": one.mean().tolist()} | ({"copied": list(one.copied)} if one.copied else {})


def alignment_json(maps: list["AttentionMap"]) -> dict[str, object] | None:
    """Of a translation: its words, the source's, and which are aligned, as pairs ``i-j`` of source and target, from 0;
    None where a side has no words, and of a text alone."""
    words = next((one for one in maps if one.name == "words"), None)
    return None if words is None else {"source": list(words.keys), "target": list(words.queries),
                                       "pairs": words.pharaoh()}
