"""Which runner serves a model family, and what its ticks cost."""

from typing import Any, Protocol

from torch import nn

from tickwise.core.errors import ConfigError
from tickwise.engine.costs import DecoderCosts, WholeTextCosts
from tickwise.engine.encoder_decoder_costs import EncoderDecoderCosts
from tickwise.engine.encoder_decoder_runner import EncoderDecoderRunner
from tickwise.engine.options import EngineOptions
from tickwise.engine.recurrent_runner import RecurrentCosts, RecurrentRunner
from tickwise.engine.runner import DecoderRunner, Runner, TextRunner
from tickwise.engine.table_runner import TableCosts, TableRunner
from tickwise.engine.work import TickWork
from tickwise.models.decoder import Decoder
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.models.factorised import Factorised
from tickwise.models.ngram import Ngram
from tickwise.models.recurrent import Recurrent
from tickwise.profiling.ledger import TickCosts
from tickwise.profiling.program import Program

LanguageModule = Decoder | EncoderDecoder | Recurrent | Ngram | Factorised
"""The families that write text."""


class ListedCosts(Protocol):
    """A ``CostModel`` that can show the listing behind it."""

    def __call__(self, work: Any) -> TickCosts | None: ...

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of a typical tick, as JSON values."""


class TickListings(ListedCosts, Protocol):
    """The costs of an engine's ticks."""

    def listing(self, work: TickWork) -> Program:
        """The program of one tick."""


def runner_for(module: nn.Module, options: EngineOptions) -> Runner:
    """The runner of the module's family, with room for ``options.max_rows`` texts or ``options.n_blocks`` blocks.

    Raises ``ConfigError`` for a module that the engine cannot run, and for options that its family cannot have.
    """
    if isinstance(module, Recurrent):
        if options.speculate != "off" or not options.use_cache:
            raise ConfigError("a recurrent model always keeps its state, and cannot take guesses back: leave use_cache "
                              "on and speculate off")
        return RecurrentRunner(module, options.max_rows)
    if isinstance(module, EncoderDecoder):
        if options.speculate != "off" or not options.use_cache:
            raise ConfigError("an encoder–decoder keeps its source and its target's tokens, and is not guessed: leave "
                              "use_cache on and speculate off")
        lane = -(-(module.config.source_length + module.config.context_length) // options.block_size)
        n_blocks = options.max_rows * lane if options.n_blocks is None else options.n_blocks
        return EncoderDecoderRunner(module, n_blocks, options.block_size, lane)
    if not isinstance(module, Decoder | Ngram | Factorised):
        raise ConfigError(f"the engine cannot run a {type(module).__name__} yet; give a language model")
    lane = -(-module.config.context_length // options.block_size)
    n_blocks = options.max_rows * lane if options.n_blocks is None else options.n_blocks
    if not isinstance(module, Decoder):
        return TableRunner(module, n_blocks, options.block_size)
    if options.use_cache:
        return DecoderRunner(module, n_blocks, options.block_size, lane)
    return TextRunner(module, n_blocks, options.block_size)


def costs_for(
    module: LanguageModule, block_size: int = EngineOptions.block_size, *, use_cache: bool = True
) -> TickListings:
    """What the ticks of an engine that runs ``module`` cost."""
    if isinstance(module, Ngram | Factorised):
        return TableCosts(module)
    if isinstance(module, Recurrent):
        return RecurrentCosts(module)
    if isinstance(module, EncoderDecoder):
        return EncoderDecoderCosts(module, block_size)
    return (DecoderCosts if use_cache else WholeTextCosts)(module, block_size)
