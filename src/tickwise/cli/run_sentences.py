"""Sentences of a text VAE: written from nothing, written again, between two others; and how likely given ones are."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import STANDARD_INPUT, lines_of
from tickwise.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tickwise.evaluation.latent import LatentFigures


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ModelArguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model or run directory of a text VAE, or of a GAN in the latent space of one."""
    device: str = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WritingArguments(_ModelArguments):
    trace: Path | None = None
    """Folder for a trace: every batch of sentences that is read and every word that is written, stage by stage
    (tickwise trace show)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(_WritingArguments):
    """Write sentences from places in the latent space: of the prior, or chosen by the GAN that works there."""

    n: int = 10
    """Sentences."""
    temperature: float = 1.0
    """Of the words' distribution; 0 takes the likeliest word every time."""
    seed: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruct(_WritingArguments):
    """Write sentences again from their places in the latent space: what the model keeps of them."""

    text: tyro.conf.Positional[str | None] = None
    """The sentence; - or nothing reads standard input, a sentence per line."""
    input: Path | None = None
    """File with a sentence per line; the answer to a blank one is blank."""
    temperature: float = 0.0
    seed: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolate(_WritingArguments):
    """Write what lies between two sentences, on the straight line through the latent space."""

    first: tyro.conf.Positional[str]
    last: tyro.conf.Positional[str]
    steps: int = 5
    """Sentences, the two ends counted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood(_ModelArguments):
    """How likely the model finds sentences (importance-weighted), and how much its latent vector says of them."""

    text: tyro.conf.Positional[str | None] = None
    """The sentence; - or nothing reads standard input, a sentence per line."""
    input: Path | None = None
    """File with a sentence per line; blank ones are left out."""
    draws: int = 100
    """Latent vectors drawn for each sentence; more bring the bound nearer to the likelihood."""
    seed: int = 1


def run(arguments: Sample | Reconstruct | Interpolate | Likelihood) -> int:
    if isinstance(arguments, Reconstruct | Likelihood):
        texts = _texts(arguments.text, arguments.input)
    from tickwise.tasks.sentences import TextVae

    model = TextVae.load(arguments.model, device=arguments.device)
    if isinstance(arguments, Likelihood):
        sentences = [text for text in texts if text.strip()]
        figures = model.likelihood(sentences, n_draws=arguments.draws, seed=arguments.seed)
        if arguments.json:
            print(json.dumps(figures.to_json(str(arguments.model), arguments.seed)))
            return 0
        print(_likelihood_table(figures))
        return 0
    with model.traced_writing(arguments.trace, name=str(arguments.model)):
        if isinstance(arguments, Sample):
            written = model.sample(arguments.n, temperature=arguments.temperature, seed=arguments.seed)
        elif isinstance(arguments, Reconstruct):
            places = [number for number, text in enumerate(texts) if text.strip()]
            written = [""] * len(texts)
            for number, sentence in zip(places, model.reconstruct(
                    [texts[number] for number in places], temperature=arguments.temperature, seed=arguments.seed),
                    strict=True):
                written[number] = sentence
        else:
            written = model.interpolate(arguments.first, arguments.last, steps=arguments.steps)
    print(json.dumps({"sentences": written}, ensure_ascii=False) if arguments.json else "\n".join(written))
    return 0


def _likelihood_table(figures: "LatentFigures") -> str:
    """The figures for people."""
    between, around = ("n/a" if known is None else f"{known.low:.3f} to {known.high:.3f}"
                       for known in (figures.nll_interval, figures.perplexity_interval))
    active = "n/a (of too few sentences)" if figures.active_units is None else f"{figures.active_units:,}"
    lines = [
        f"{figures.n_sentences:,} sentences, {figures.n_tokens:,} tokens with their ends; {figures.n_draws} draws "
        "each; nats per sentence", "",
        f"negative log-likelihood (importance-weighted)  {figures.nll:10.3f}   95 % interval {between}",
        f"negative evidence lower bound                  {figures.bound:10.3f}",
        f"  reconstruction                               {figures.reconstruction:10.3f}",
        f"  KL from the prior                            {figures.kl:10.3f}",
        f"active latent dimensions                       {active:>10}",
        f"perplexity per token                           {figures.perplexity:10.3f}   95 % interval {around}"]
    if figures.unknown:
        from tickwise.evaluation.perplexity import unknown_note

        lines += ["", unknown_note(figures.unknown, figures.n_tokens)]
    return "\n".join(lines)


def _texts(text: str | None, path: Path | None) -> list[str]:
    """The given sentence, or the lines of the file or of standard input, blank ones too; one is not."""
    if text is not None and path is not None:
        raise ConfigError("give the sentence or --input, not both")
    if text is not None and text != STANDARD_INPUT:
        if not text.strip():
            raise DataError("the sentence is empty; give at least one word")
        return [text]
    found = list(lines_of(path))
    if not any(line.strip() for line in found):
        raise DataError(f"{path or 'standard input'}: no sentence in it")
    return found
