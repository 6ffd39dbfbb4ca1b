"""What a text VAE is for: write sentences, write one again, go from one to another, say how likely one is."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.sentences import Sentences, sentences_from_ids
from tickwise.evaluation.latent import LatentFigures, latent_figures
from tickwise.interop.directory import load_module, read_config, resolve_model_path
from tickwise.models.gan import LatentGan
from tickwise.models.lockstep import ended_lengths, write
from tickwise.models.vae import GivenLatent, Posterior, Vae
from tickwise.profiling.calls import TracedMethod, traced_calls
from tickwise.tokenizers.tokenizer import Tokenizer

AUTOENCODER = "autoencoder"
"""Folder, inside the model directory of a latent GAN, of the VAE in whose latent space it works."""
_AT_ONCE = 64


class TextVae:
    """A text VAE with its tokenizer, and with the GAN in its latent space where there is one.

    >>> model = TextVae.load(Path("out/vae"))
    >>> model.interpolate("the market rose", "the chairman resigned", steps=5)
    """

    def __init__(self, module: Vae, tokenizer: Tokenizer, gan: LatentGan | None = None) -> None:
        self.module, self.tokenizer, self.gan = module, tokenizer, gan
        self.device = next(module.parameters()).device

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto") -> "TextVae":
        """From a model or run directory of a VAE, or of a GAN in a VAE's latent space; ``CheckpointError`` if it is
        neither."""
        path = resolve_model_path(Path(path))
        gan: LatentGan | None = None
        name = read_config(path)[0].module_name
        if name == "LatentGan":
            loaded = load_module(path, device=device)
            assert isinstance(loaded, LatentGan)
            path, gan = resolve_model_path(path / AUTOENCODER), loaded
            name = read_config(path)[0].module_name
        if name != "Vae":
            raise CheckpointError(f"{path}: not a text VAE; train one with tickwise train vae")
        module = load_module(path, device=device)
        assert isinstance(module, Vae)
        return cls(module, Tokenizer.load(path), gan)

    def traced_writing(self, path: Path | None, *, name: str) -> AbstractContextManager[None]:
        """Every batch of sentences that is read, and every word that is written, is a tick of a trace at ``path``, if
        one is given; ``name`` is the model's there. Raises ``OutputError`` as ``traced_calls``."""
        return traced_calls(self.module, path, model=name, methods=(
            TracedMethod(name="encode", mask_inputs=(1,)), TracedMethod(name="read", phase="decode"),
            TracedMethod(name="logits", begins_tick=False),
            *([] if self.gan is None else [TracedMethod(owner=self.gan)]),
        ))

    # ------------------------------------------------------------------ text to sentences

    def sentences(self, texts: Sequence[str]) -> Sentences:
        """Tokenized; ``DataError`` for an empty text or one that is too long."""
        ids = self.tokenizer.encode_batch([" ".join(text.split()) for text in texts])
        eos_id, longest = self.module.config.eos_id, self.module.config.context_length
        for number, (one, text) in enumerate(zip(ids, texts, strict=True), start=1):
            shown = f"text {number}" if len(texts) > 1 else "the text"
            if not one:
                raise DataError(f"{shown} is empty; give at least one word")
            if len(one) >= longest:
                raise DataError(f"{shown} has {len(one):,} tokens, this model reads sentences of up to {longest - 1:,}:"
                                f" {text[:40]!r}…")
            if eos_id in one:
                raise DataError(f"{shown} has an end-of-text token inside; give one sentence: {text[:40]!r}")
        return sentences_from_ids(ids, eos_id)

    @torch.no_grad()
    def places(self, texts: Sequence[str]) -> Posterior:
        """Where the texts are in the latent space: mean and log variance (B, Z)."""
        parts = []
        sentences = self.sentences(texts)
        for numbers in torch.arange(len(texts)).split(_AT_ONCE):
            ids_BT, lengths_B = sentences.padded(numbers.numpy())
            parts.append(self.module.encode(ids_BT.to(self.device), lengths_B.to(self.device)))
        return Posterior(torch.cat([part.mean for part in parts]), torch.cat([part.log_var for part in parts]))

    def decode(self, z_BZ: Tensor, *, temperature: float = 0.0, seed: int = 1) -> list[str]:
        """A sentence from each place; at temperature 0 the likeliest word every time."""
        _check_temperature(temperature)
        generator = torch.Generator(self.device).manual_seed(seed)
        eos_id, texts = self.module.config.eos_id, list[str]()
        for z in z_BZ.to(self.device).split(_AT_ONCE):
            first_B = torch.full((len(z),), eos_id, device=self.device)
            ids_BT = write(GivenLatent(self.module, z), first_B, self.module.config.context_length - 1, eos_id=eos_id,
                           temperature=temperature, generator=generator)
            for row, length in zip(ids_BT.tolist(), ended_lengths(ids_BT, eos_id).tolist(), strict=True):
                ids = row[:length]
                texts.append(self.tokenizer.decode(ids[:-1] if ids[-1] == eos_id else ids).strip())
        return texts

    # ------------------------------------------------------------------ what it is for

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0, seed: int = 1) -> list[str]:
        """``n`` sentences from places drawn from the prior, or by the GAN in the latent space."""
        if n < 1:
            raise ConfigError(f"--n: must be at least 1, got {n}")
        width = self.module.config.latent if self.gan is None else self.gan.config.noise
        noise = torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).to(self.device)
        return self.decode(noise if self.gan is None else self.gan(noise), temperature=temperature, seed=seed)

    def reconstruct(self, texts: Sequence[str], *, temperature: float = 0.0, seed: int = 1) -> list[str]:
        """Each text written again from its place."""
        return self.decode(self.places(texts).mean, temperature=temperature, seed=seed)

    def interpolate(self, first: str, last: str, *, steps: int = 5) -> list[str]:
        """Sentences from ``steps`` places on the straight line between two texts, both ends counted."""
        if steps < 2:
            raise ConfigError(f"--steps: at least 2, the two ends, got {steps}")
        a_Z, b_Z = self.places([first, last]).mean
        shares_B1 = torch.linspace(0, 1, steps, device=self.device)[:, None]
        return self.decode(torch.lerp(a_Z.expand(steps, -1), b_Z.expand(steps, -1), shares_B1))

    def likelihood(self, texts: Sequence[str], *, n_draws: int = 100, seed: int = 1) -> LatentFigures:
        """How likely the model finds the texts, and how much their places say."""
        return latent_figures(self.module, self.sentences(texts), self.device, n_draws=n_draws, seed=seed,
                              unknown_id=self.tokenizer.unk_id)


def _check_temperature(temperature: float) -> None:
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"--temperature: must be at least 0, got {temperature}")
