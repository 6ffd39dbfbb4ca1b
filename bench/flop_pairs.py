"""The listing's FLOPs beside those of PyTorch's FlopCounterMode, on six architectures, forward and with backward.

    python bench/flop_pairs.py

The listing runs without data; FlopCounterMode counts a real run on the CPU. Matrix products must be equal. Attention,
which FlopCounterMode leaves at zero on a CPU, is compared with what it counts when attention is written out as two
matrix products. Prints one line of JSON per pair on stderr and the record on stdout.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.program import ATTENTION, Program, list_program, list_training_program
from tickwise.training.next_token import next_token_loss

BATCH, CONTEXT, VOCAB = 2, 24, 2100
_OWN = {"vocab_size": VOCAB, "context_length": 512, "width": 32, "n_layers": 3, "n_heads": 4, "head_dim": 8,
        "hidden": 80}


def _own(**options: Any) -> nn.Module:
    return Decoder(DecoderConfig(**(_OWN | options))).initialise(0)


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=80, num_hidden_layers=3,
                                        num_attention_heads=4, num_key_value_heads=2))


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=512))


def _t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=80, num_layers=3,
                                               num_heads=4, decoder_start_token_id=0))


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
                                      intermediate_size=80))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "tickwise qwen3": lambda: _own(n_kv_heads=2, qk_norm=True),
    "tickwise value residual": lambda: _own(n_kv_heads=4, qk_norm=True, value_residual=True, activation="relu2"),
    "tickwise gpt2": lambda: _own(n_kv_heads=4, positions="learned", norm="layernorm", activation="gelu", bias=True,
                                  tie_embeddings=True),
    "transformers Llama": _llama,
    "transformers GPT-2": _gpt2,
    "transformers T5": _t5,
    "transformers BERT": _bert,
}


def inputs_of(module: nn.Module, length: int) -> dict[str, Tensor]:
    """What the forward pass takes."""
    ids = torch.randint(0, VOCAB, (BATCH, length), generator=torch.Generator().manual_seed(0))
    if isinstance(module, Decoder):
        return {"ids_BT": ids}
    config: Any = module.config
    return {"input_ids": ids} | ({"decoder_input_ids": ids[:, : length // 2]} if config.is_encoder_decoder else {})


def training_loss(module: nn.Module, **inputs: Tensor) -> Tensor:
    """One number that depends on all that the module trains."""
    if isinstance(module, Decoder):
        return next_token_loss(module, inputs["ids_BT"], inputs["ids_BT"])
    logits: Tensor = module(**inputs).logits
    return logits.float().logsumexp(-1).mean()


def _written_out(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:
    """Attention as two matrix products; the masks change no FLOPs."""
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return torch.softmax(q @ k.transpose(-2, -1) * (scale or q.shape[-1] ** -0.5), -1) @ v


@contextmanager
def attention_written_out() -> Iterator[None]:
    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _written_out  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def counted_by_torch(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def split(program: Program) -> tuple[int, int]:
    """FLOPs of matrix products and of fused attention."""
    attention = sum(i.flops for i in program.instructions if i.op.startswith(ATTENTION))
    return program.flops - attention, attention


def pairs(name: str, length: int) -> Iterator[dict[str, Any]]:
    """The listing's and PyTorch's FLOPs, forward and with backward."""
    torch.manual_seed(0)
    module = ARCHITECTURES[name]().eval()
    inputs = inputs_of(module, length)

    def forward() -> None:
        with torch.no_grad():
            module(**inputs)

    def training() -> None:
        torch.autograd.grad(training_loss(module, **inputs), list(module.parameters()), allow_unused=True)

    for direction, work, program in (
        ("forward", forward, list_program(module, **inputs)),
        ("forward and backward", training, list_training_program(module, call=training_loss, **inputs)),
    ):
        products, attention = split(program)
        by_torch = counted_by_torch(work)
        with attention_written_out():
            written_out = counted_by_torch(work)
        yield {"architecture": name, "direction": direction, "tokens": length, "products": products,
               "products_by_torch": by_torch, "attention": attention,
               "attention_by_torch_when_written_out": written_out - by_torch}


def main() -> int:
    equal, total = 0, 0
    for name in ARCHITECTURES:
        for length in (CONTEXT, 300):  # tickwise attends in another way to short texts on a CPU
            for pair in pairs(name, length):
                print(json.dumps(pair), file=sys.stderr)
                equal += (pair["products"] == pair["products_by_torch"]
                          and pair["attention"] == pair["attention_by_torch_when_written_out"])
                total += 1
    print(json.dumps({"id": "engine.3", "value": equal / total,
                      "unit": "share of FLOP counts equal to FlopCounterMode's", "bar": 1.0, "met": equal == total,
                      "pairs": total, "architectures": list(ARCHITECTURES)}))
    return 0 if equal == total else 1


if __name__ == "__main__":
    sys.exit(main())
