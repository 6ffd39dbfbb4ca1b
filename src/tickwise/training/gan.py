"""From data to generators trained by adversaries: SeqGAN over sentences, a GAN in the latent space of a text VAE."""

import copy
import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tickwise.core import console
from tickwise.core.config import refuse_unused
from tickwise.core.device import resolve_device
from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.core.seeds import seed_everything
from tickwise.data.sentences import Sentences
from tickwise.interop.directory import load_module, read_config, read_run, resolve_model_path, save_model
from tickwise.models.families import config_values
from tickwise.models.gan import Discriminator, DiscriminatorConfig, LatentGan, LatentGanConfig
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.models.vae import Vae
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.adversarial import AdversarialOptions, LatentGame, SeqGan, game_settings
from tickwise.training.config import OptimizerOptions
from tickwise.training.game import LIKELIHOOD, GanResult, Round, check_game_output, open_game_output, play_round
from tickwise.training.mediated_game import MediatedGame
from tickwise.training.record import run_facts
from tickwise.training.recurrent import RecurrentOptions
from tickwise.training.run import about_data, check_outputs, train_module
from tickwise.training.sentence_likelihood import SentenceLikelihood, mean_nats
from tickwise.training.vae import SentenceDataConfig, open_sentences

_LIKELIHOOD_EPOCHS = 20
_ENCODED_AT_ONCE = 64


# ---------------------------------------------------------------------- over sentences


@dataclass(frozen=True, kw_only=True)
class DiscriminatorOptions:
    """The discriminator: convolutions over a few words."""

    width: int = 64
    filters: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Tokens that a filter sees."""
    features: int = 64
    """Filters of each of these widths."""
    dropout: float = 0.25


@dataclass(frozen=True, kw_only=True)
class GanTrainConfig(SentenceDataConfig):
    """A generator of sentences: first by maximum likelihood, which the general settings are about, then against a
    discriminator."""

    longest: int = 40
    """Sentences of so many tokens or more, their end counted, are left out; no longer ones are written."""
    depth: int = 1
    """Layers of the generator."""
    model: RecurrentOptions = field(default_factory=RecurrentOptions)
    discriminator: DiscriminatorOptions = field(default_factory=DiscriminatorOptions)
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(name="adamw", weight_decay=0.0, beta2=0.999))
    """Of the maximum likelihood."""
    max_steps: int | None = None
    """Updates of the maximum likelihood; --adversarial.steps are those of the game."""
    max_seconds: float | None = None
    """Wall-clock time of the maximum likelihood; --adversarial.max-seconds is about the game."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"--depth: must be positive, got {self.depth}")
        if self.adversarial.judge == "language-model":
            for option in dataclasses.fields(DiscriminatorOptions):
                if getattr(self.discriminator, option.name) != option.default:
                    raise ConfigError(f"--discriminator.{option.name}: has no effect on --adversarial.judge "
                                      "language-model, which has the generator's shape; leave it out")
        super().__post_init__()


def train_gan(config: GanTrainConfig, trace: Path | None = None) -> GanResult:
    """Train by maximum likelihood into ``out/likelihood``, then play the game from the best model there.

    ``out/model`` is the generator, a recurrent language model; ``out/discriminator`` the discriminator. Either phase
    goes on from its checkpoint with ``resume``. ``trace`` is a folder for a trace of the game.
    """
    _check_outputs(config, trace)
    data, sentences, validation = open_sentences(config)
    generator_config = _generator_config(config, data.tokenizer.vocab_size)
    about = about_data(data, config.data) | {"sentences": len(sentences)}
    likelihood = dataclasses.replace(
        config, out=config.out / LIKELIHOOD, batch_size=config.batch_size or 64,
        optimizer=dataclasses.replace(config.optimizer, lr=config.optimizer.lr or 0.003))
    if not (config.max_steps or config.max_tokens or config.max_seconds):
        n_tokens = int(sentences.lengths.sum()) + len(sentences)
        likelihood = dataclasses.replace(likelihood, max_tokens=_LIKELIHOOD_EPOCHS * n_tokens)
    assert likelihood.batch_size is not None
    open_game_output(config)
    first = train_module(
        likelihood, Recurrent(generator_config).initialise(config.seed),
        SentenceLikelihood(sentences, validation, batch_size=likelihood.batch_size, seed=config.seed), data.tokenizer,
        data=about,
        lines=[f"generator: {generator_config.cell}, {generator_config.n_layers} layers of {generator_config.hidden}; "
               f"{len(sentences):,} sentences; first by maximum likelihood"],
    )
    if first.interrupted:
        return GanResult(config.out, first.model, 0, first.seconds, first.validation, True)
    device = resolve_device(config.device)
    generator = load_module(first.model, device=config.device).requires_grad_(True)
    assert isinstance(generator, Recurrent)
    by_model = config.adversarial.judge == "language-model"
    discriminator: Discriminator | Recurrent = copy.deepcopy(generator) if by_model else Discriminator(
        DiscriminatorConfig(vocab_size=data.tokenizer.vocab_size, **dataclasses.asdict(config.discriminator))
    ).initialise(config.seed)
    seed_everything(config.seed)
    eos_id, real = sentences.eos_id, all_padded(sentences)
    game = SeqGan(generator, discriminator.to(device), real, first_id=eos_id, eos_id=eos_id,
                  options=config.adversarial) if isinstance(discriminator, Discriminator) else \
        MediatedGame(generator, discriminator, real, first_id=eos_id, eos_id=eos_id, options=config.adversarial)
    settings = game_settings(config.adversarial) | {
        "data": data.fingerprint, "seed": config.seed, "longest": config.longest, "generator": _digest(generator),
        "discriminator": dataclasses.asdict(config.discriminator)}

    def figures() -> dict[str, float]:
        generator.eval()
        return {} if validation is None else {"validation_nll": mean_nats(generator, validation, device)}

    def save(record: dict[str, Any]) -> None:
        save_model(config.out / "model", generator, data.tokenizer, run=record)
        save_model(config.out / "discriminator", discriminator, data.tokenizer, run=record)

    how = "a language model that judges every word" if by_model else \
        f"{config.adversarial.rollouts} rollouts"
    console.say(f"discriminator: {discriminator.n_parameters():,} parameters; {config.adversarial.steps:,} steps of "
                f"the game, {how}")
    record = run_facts(config, generator, about, dtype="fp32", device=device)
    before = figures().get("validation_nll")
    result = play_round(config, Round(
        game=game, n_steps=config.adversarial.steps, max_seconds=config.adversarial.max_seconds, settings=settings,
        record=record | {"discriminator": config_values(discriminator)}, figures=figures, save=save), trace)
    if before is not None and "validation_nll" in result.figures:
        after = result.figures["validation_nll"]
        away = (f": the game has led away from them; the generator before it is in {likelihood.out / 'model'}"
                if after > before else "")
        console.say(f"development sentences: {before:.3f} nats per token before the game, {after:.3f} after it{away}")
    return result


def _check_outputs(config: SentenceDataConfig, trace: Path | None) -> None:
    check_game_output(config)
    check_outputs(dataclasses.replace(config, resume="auto", overwrite=False), trace)


def _generator_config(config: GanTrainConfig, vocab_size: int) -> RecurrentConfig:
    options = config.model
    return RecurrentConfig(
        vocab_size=vocab_size, n_layers=config.depth, **{
            name.name: getattr(options, name.name) for name in dataclasses.fields(options)
        } | {"hidden": options.width if options.hidden is None else options.hidden},
    )  # fmt: skip


def all_padded(sentences: Sentences) -> Tensor:
    """(N, T) int32: every sentence with its end, padded with it to the longest."""
    return sentences.padded(np.arange(len(sentences)))[0].to(torch.int32)


# ---------------------------------------------------------------------- in the latent space


_UNUSED = (
    *(f"optimizer.{option.name}" for option in dataclasses.fields(OptimizerOptions) if option.name != "lr"),
    "schedule", "accumulate", "checkpoint_activations", "parallel", "max_tokens", "stop_at_loss", "patience",
    "ema_decay", "evaluate_tokens",
)
"""Settings of a training that the game has no use for."""


@dataclass(frozen=True, kw_only=True)
class LatentGanOptions:
    """Generator and critic of latent vectors."""

    noise: int = 64
    """Features of the noise that the generator starts from."""
    hidden: int = 256
    n_layers: int = 3
    """Hidden layers of either."""


@dataclass(frozen=True, kw_only=True)
class LatentGanTrainConfig(SentenceDataConfig):
    """A Wasserstein GAN over the latent vectors that a text VAE gives the training sentences."""

    autoencoder: Path
    """Model or run directory of the text VAE."""
    model: LatentGanOptions = field(default_factory=LatentGanOptions)
    optimizer: OptimizerOptions = field(default_factory=lambda: OptimizerOptions(name="adamw", lr=2e-4))
    """Only its learning rate is used."""
    critic_steps: int = 5
    """Updates of the critic before each of the generator's."""
    penalty: float = 10.0
    """Weight of the gradient penalty."""
    posterior: bool = True
    """The latent vectors are drawn from each sentence's distribution; else they are its mean."""

    def __post_init__(self) -> None:
        if isinstance(self.autoencoder, str):
            object.__setattr__(self, "autoencoder", Path(self.autoencoder))
        if self.critic_steps < 1:
            raise ConfigError(f"--critic-steps: must be at least 1, got {self.critic_steps}")
        if not self.penalty >= 0:
            raise ConfigError(f"--penalty: must not be negative, got {self.penalty}")
        if self.dtype == "bf16" or self.compile == "on":
            raise ConfigError("--dtype bf16 and --compile on: have no effect on a GAN of latent vectors; leave them "
                              "out")
        refuse_unused(self, _UNUSED, "on a GAN of latent vectors, which learns by Adam at a constant rate until "
                                     "--max-steps or --max-seconds")
        super().__post_init__()


class _WithAutoencoder:
    """The assets of a latent GAN: its text VAE, whole, in a folder inside."""

    def __init__(self, vae: Vae, tokenizer: Tokenizer, run: dict[str, Any]) -> None:
        self._vae, self._tokenizer, self._run = vae, tokenizer, run

    def save(self, folder: Path) -> None:
        save_model(folder / "autoencoder", self._vae, self._tokenizer, run=self._run or None)


def train_latent_gan(config: LatentGanTrainConfig, trace: Path | None = None) -> GanResult:
    """Train; ``out/model`` holds the generator, the critic and the VAE: ``tickwise run sample out`` writes with it.
    ``trace`` is a folder for a trace."""
    _check_outputs(config, trace)
    path = resolve_model_path(config.autoencoder)
    if read_config(path)[0].module_name != "Vae":
        raise CheckpointError(f"{path}: not a text VAE; train one with tickwise train vae")
    vae = load_module(path, device=config.device)
    assert isinstance(vae, Vae)
    tokenizer = Tokenizer.load(path)
    vae_run = read_run(path)
    config = _with_words_of(config, vae_run)
    config = dataclasses.replace(config, longest=min(config.longest, vae.config.context_length))
    data, sentences, validation = open_sentences(config)
    if data.tokenizer.fingerprint != tokenizer.fingerprint:
        source = vae_run.get("data", {}).get("source")
        raise ConfigError(f"{config.data}: its vocabulary is not that of {path}; give the data that the VAE was "
                          f"trained on{f', {source}' if source else ''}")
    device = resolve_device(config.device)
    seed_everything(config.seed)
    real = latent_vectors(vae, sentences, device, drawn=config.posterior)
    open_game_output(config)
    gan = LatentGan(LatentGanConfig(latent=vae.config.latent, **dataclasses.asdict(config.model)))
    gan = gan.initialise(config.seed).to(device)
    lr = config.optimizer.lr or 2e-4
    game = LatentGame(gan, real, batch_size=config.batch_size or 256, lr=lr,
                      critic_steps=config.critic_steps, penalty=config.penalty)
    n_steps = config.max_steps or (5000 if config.max_seconds is None else 10**9)
    settings = {"data": data.fingerprint, "seed": config.seed, "longest": config.longest, "autoencoder": _digest(vae),
                "model": dataclasses.asdict(config.model), "batch_size": game.batch_size, "lr": lr,
                "critic_steps": config.critic_steps, "penalty": config.penalty, "posterior": config.posterior}
    held_out = None if validation is None else latent_vectors(vae, validation, device, drawn=config.posterior)

    @torch.no_grad()
    def figures() -> dict[str, float]:
        """How far latent moments are from those of sentences that were not trained on."""
        if held_out is None:
            return {}
        noise = torch.randn(len(held_out), gan.config.noise, generator=torch.Generator().manual_seed(1)).to(device)
        written = gan(noise)
        scale = held_out.std(0)
        return {"mean_error": ((written.mean(0) - held_out.mean(0)) / scale).abs().mean().item(),
                "deviation_error": (written.std(0) / scale - 1).abs().mean().item(),
                "covariance_error": (torch.corrcoef(written.T) - torch.corrcoef(held_out.T)).abs().mean().item()}

    def save(record: dict[str, Any]) -> None:
        save_model(config.out / "model", gan, _WithAutoencoder(vae, tokenizer, vae_run), run=record)

    console.say(f"latent GAN: {gan.n_parameters():,} parameters, {len(real):,} latent vectors of {real.shape[1]}")
    about = about_data(data, config.data) | {"sentences": len(sentences)}
    return play_round(config, Round(
        game=game, n_steps=n_steps, max_seconds=config.max_seconds, settings=settings,
        record=run_facts(config, gan, about, dtype="fp32", device=device), figures=figures, save=save), trace)


def _with_words_of(config: LatentGanTrainConfig, vae_run: dict[str, Any]) -> LatentGanTrainConfig:
    """``config`` with the VAE's way from raw text to tokens, as its record says; ``ConfigError`` for another one."""
    recorded = vae_run.get("config", {})
    for option in dataclasses.fields(LatentGanTrainConfig):
        if option.name not in ("tokenizer", "vocab_size", "word_style") or option.name not in recorded:
            continue
        given, own = getattr(config, option.name), recorded[option.name]
        if given not in (option.default, own):
            raise ConfigError(f"--{option.name.replace('_', '-')} {given}: {config.autoencoder} was trained with "
                              f"{own}; leave it out")
        config = dataclasses.replace(config, **{option.name: own})
    return config


@torch.no_grad()
def latent_vectors(vae: Vae, sentences: Sentences, device: torch.device, *, drawn: bool) -> Tensor:
    """(N, Z) for all sentences, in their order: draws from their distributions, or the means."""
    order = np.argsort(sentences.lengths, kind="stable")
    found = torch.empty(len(sentences), vae.config.latent, device=device)
    for numbers in np.array_split(order, range(_ENCODED_AT_ONCE, len(order), _ENCODED_AT_ONCE)):
        ids_BT, lengths_B = sentences.padded(numbers)
        posterior = vae.encode(ids_BT.to(device), lengths_B.to(device))
        noise = torch.randn_like(posterior.mean) if drawn else torch.zeros_like(posterior.mean)
        found[torch.from_numpy(numbers)] = posterior.sample(noise)
    return found


def _digest(module: nn.Module) -> str:
    """Changes when any weight changes."""
    digest = hashlib.blake2b(digest_size=16)
    for value in module.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
