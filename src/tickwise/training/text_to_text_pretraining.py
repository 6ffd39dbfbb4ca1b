"""From text or prepared data to an encoder–decoder pre-trained as T5 is: settings, what follows from them, the run."""

from pathlib import Path

from tickwise.core.errors import ConfigError
from tickwise.data.batches import BatchCursor
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import open_or_prepare
from tickwise.data.prepared import PreparedData
from tickwise.data.span_corruption import corrupted_lengths, sentinel_ids, text_length, with_sentinels
from tickwise.interop.directory import read_config, resolve_model_path
from tickwise.interop.warm_start import warm_start
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.dial import (
    MAX_EPOCHS_BY_DEFAULT,
    PAIR_ADAMW,
    describe_run,
    hidden_width,
    limited,
    width_and_heads,
    with_batch_and_lr,
)
from tickwise.training.run import TrainResult, about_data, train_module
from tickwise.training.span_corruption import SpanCorruption
from tickwise.training.text_to_text_config import TextToTextTrainConfig


def text_to_text_from_dial(config: TextToTextTrainConfig, tokenizer: Tokenizer) -> EncoderDecoderConfig:
    """The encoder–decoder of that depth; explicit options win. ``ConfigError`` where they contradict each other."""
    options, depth = config.model, config.depth
    width, n_heads = width_and_heads(depth, options.width, options.n_heads)
    if tokenizer.eos_id is None:
        raise ConfigError(f"{config.data}: its tokenizer has no end-of-text token, so targets have no end; give raw "
                          "text")
    longest = max(config.context, config.longest)
    return EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, source_length=longest, context_length=longest, width=width,
        n_encoder_layers=depth, n_decoder_layers=options.decoder_layers or depth, n_heads=n_heads, n_kv_heads=n_heads,
        head_dim=width // n_heads, hidden=options.hidden or hidden_width(width, gated=True), dropout=options.dropout,
        pad_id=tokenizer.eos_id, start_id=tokenizer.eos_id, eos_id=tokenizer.eos_id, copies=options.copies,
    )


def plan_text_to_text(
    config: TextToTextTrainConfig,
) -> tuple[TextToTextTrainConfig, EncoderDecoderConfig, PreparedData, Tokenizer]:
    """The config with what follows from it, the model, the data, and the tokenizer with its sentinels."""
    start = None if config.start is None else resolve_model_path(config.start)
    if start is not None and read_config(start)[0].purpose != "text-to-text model":
        raise ConfigError(f"--start {start}: a {read_config(start)[0].name}, not an encoder–decoder")
    data = open_or_prepare(config.data, PrepareConfig(
        tokenizer=config.tokenizer, vocab_size=config.vocab_size, word_style=config.word_style,
        lowercase=config.lowercase, tokenizer_from=start))
    tokenizer = with_sentinels(data.tokenizer)
    if start is not None and tokenizer.fingerprint != with_sentinels(Tokenizer.load(start)).fingerprint:
        raise ConfigError(f"{config.data}: was prepared with another tokenizer than that of {start}; give raw text, or "
                          f"prepare it with --tokenizer-from {start}")
    model = text_to_text_from_dial(config, tokenizer)
    config = with_batch_and_lr(config, config.context, model.width, PAIR_ADAMW)
    return limited(config, MAX_EPOCHS_BY_DEFAULT * len(data.split("train").tokens)), model, data, tokenizer


def pretrain_text_to_text(config: TextToTextTrainConfig, trace: Path | None = None) -> TrainResult:
    """Train as ``config`` says; the run directory holds everything. Raises a ``UserError`` as ``train`` does."""
    config, model, data, tokenizer = plan_text_to_text(config)
    assert config.batch_size is not None
    length = text_length(config.context, config.noise_density, config.mean_span)
    cursor = BatchCursor(data.split("train").tokens, batch_size=config.batch_size, context=length, seed=config.seed,
                         vocab_size=data.tokenizer.vocab_size)
    validation = data.split("validation").tokens if "validation" in data.splits else None
    if validation is not None and len(validation) <= length:
        validation = None
    objective = SpanCorruption(cursor, validation, model, sentinels=sentinel_ids(tokenizer),
                               density=config.noise_density, mean_span=config.mean_span)
    module = EncoderDecoder(model).initialise(config.seed)
    started = [] if config.start is None else warm_start(module, config.start).lines()
    source, target = corrupted_lengths(length, config.noise_density, config.mean_span)
    lines = [
        f"model: encoder–decoder, {model.n_encoder_layers} + {model.n_decoder_layers} layers, width {model.width}, "
        f"{model.n_heads} heads of {model.head_dim}, swiglu {model.hidden}, vocabulary {model.vocab_size:,}, "
        f"{module.n_parameters():,} parameters",
        f"objective: span corruption, {config.noise_density:.0%} of {length:,} tokens in spans of about "
        f"{config.mean_span:g}: sources of {source:,} tokens, targets of {target:,}",
        describe_run(config, length), *started,
    ]
    return train_module(config, module, objective, tokenizer, data=about_data(data, config.data), lines=lines,
                        trace=trace)
