"""The encoder–decoder's own behaviour, and that it is torch.nn.Transformer where their options meet."""

import pytest
import torch
from torch import nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, marking
from tickwise.engine.kv_cache import KVBlocks, KVCache
from tickwise.engine.runner import RowInput
from tickwise.interop.directory import load_module, save_model
from tickwise.layers.packed import PackedTokens
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

SHAPE = {"vocab_size": 29, "source_length": 14, "context_length": 12, "width": 32, "n_encoder_layers": 2,
         "n_decoder_layers": 3, "n_heads": 4, "n_kv_heads": 4, "head_dim": 8, "hidden": 48, "pad_id": 0, "start_id": 0,
         "eos_id": 1}
OPTIONS = [
    {},
    {"positions": "sinusoidal", "norm": "layernorm", "norm_place": "post", "final_norm": False, "activation": "relu",
     "bias": True, "tie_embeddings": False, "logit_bias": True},
    {"positions": "learned", "n_kv_heads": 2, "embedding_norm": True, "activation": "geglu_tanh",
     "scale_embedding": False},
    {"positions": "relative", "relative_buckets": 8, "relative_distance": 10, "scale_scores": False,
     "scale_logits": True, "scale_embedding": False, "activation": "silu"},
]


def model(options, **more):
    torch.manual_seed(0)
    module = EncoderDecoder(EncoderDecoderConfig(**(SHAPE | options | more))).initialise(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def texts(n=3, source=14, target=12):
    torch.manual_seed(7)
    return torch.randint(2, 29, (n, source)), torch.randint(2, 29, (n, target))


@pytest.mark.parametrize("options", OPTIONS)
def test_no_target_position_sees_a_later_one_and_all_see_the_whole_source(options):
    module = model(options)
    source, target = texts()
    later, other = target.clone(), source.clone()
    later[:, 7:] = (later[:, 7:] + 1) % 29
    other[:, -1] = (other[:, -1] + 1) % 29
    with torch.no_grad():
        before, after = module(source, None, target), module(source, None, later)
        moved = module(other, None, target)
    torch.testing.assert_close(before[:, :7], after[:, :7], atol=1e-5, rtol=0)
    assert (before[:, 7:] - after[:, 7:]).abs().amax((1, 2)).min() > 1e-3
    assert (before - moved).abs().amax(2).min() > 1e-5


@pytest.mark.parametrize("options", OPTIONS)
def test_padding_and_neighbours_change_nothing(options):
    module = model(options)
    source, target = texts()
    lengths = torch.tensor([14, 5, 9])
    padded = source.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 3 + row
    with torch.no_grad():
        together = module(padded, lengths, target)
        for row, length in enumerate(lengths.tolist()):
            alone = module(source[row : row + 1, :length], None, target[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("options", OPTIONS)
def test_states_without_padding_are_those_of_the_tokens(options):
    module = model(options)
    source, target = texts()
    lengths, target_lengths = torch.tensor([4, 14, 6]), torch.tensor([12, 3, 7])
    with torch.no_grad():
        states = module.target_states(source, lengths, target, target_lengths)
        expected = PackedTokens(target_lengths, 12).pack(module.hidden_states(target, module.encode(source, lengths)))
    torch.testing.assert_close(states, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_without_padding_are_those_with_it(options):
    source, target = texts()
    lengths, target_lengths = torch.tensor([4, 14, 6]), torch.tensor([12, 3, 7])
    packed, found = PackedTokens(target_lengths, 12), []
    for way in ("packed", "padded"):
        module = model(options).train()
        if way == "packed":
            states = module.target_states(source, lengths, target, target_lengths)
        else:
            states = packed.pack(module.hidden_states(target, module.encode(source, lengths)))
        module.loss(states, packed.rows(target.flatten()), 0.1).backward()
        assert all(p.grad is not None for p in module.parameters())
        found.append([p.grad for p in module.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", OPTIONS)
def test_decoding_with_a_cache_equals_the_whole_target_at_once(options):
    module = model(options)
    source, target = texts()
    lengths = torch.tensor([14, 5, 9])
    with torch.inference_mode():
        whole = module(source, lengths, target)
        memory = module.encode(source, lengths)
        cache = KVCache(3, 3, module.config.n_kv_heads, 8, capacity=12)
        steps = [module.logits(module.hidden_states(part, memory, cache=cache))
                 for part in target.split([4, 1, 1, 3, 1, 2], dim=1)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=3e-5, rtol=0)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("lane", [4, None])
def test_decoding_in_blocks_of_the_engine_equals_the_whole_target(options, lane):
    module = model(options)
    source, target = texts(n=2)
    lengths = torch.tensor([14, 5])
    blocks = KVBlocks(3, module.config.n_kv_heads, 8, 8, 4, torch.float32, torch.device("cpu"), lane=lane)
    tables = [[0, 1, 2, 3], [4, 5, 6, 7]] if lane else [[0, 3, 1, 6], [4, 5, 2, 7]]

    class SideBySide:
        """Queries of both rows in one sequence."""

        def __init__(self, sizes):
            self.sizes = sizes

        def attend(self, layer, q_1HTD):
            parts = [memories[row].attend(layer, q)
                     for row, q in enumerate(q_1HTD.split(self.sizes, 2)) if q.shape[2]]
            return torch.cat(parts, 2)

    with torch.inference_mode():
        whole = module(source, lengths, target)
        memories = [module.encode(source[r : r + 1, :n]) for r, n in enumerate(lengths.tolist())]
        done = [0, 0]
        for sizes in ([5, 0], [1, 3], [1, 1], [1, 1], [0, 1]):
            rows = [RowInput(target[r, done[r] : done[r] + n].tolist(), done[r], tables[r], n)
                    for r, n in enumerate(sizes) if n]
            ids = torch.tensor([[i for row in rows for i in row.ids]])
            hidden = module.hidden_states(ids, SideBySide(sizes), cache=blocks.tick(rows))
            parts = module.logits(hidden)[0].split(sizes)
            for r, n in enumerate(sizes):
                torch.testing.assert_close(parts[r], whole[r, done[r] : done[r] + n], atol=3e-5, rtol=0)
                done[r] += n


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_it_is_torch_nn_transformer_with_the_same_weights(norm_first, activation):
    torch.manual_seed(0)
    reference = nn.Transformer(32, 4, 2, 3, 48, dropout=0.0, activation=activation, norm_first=norm_first,
                               batch_first=True)
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    module = model({"positions": "sinusoidal", "norm": "layernorm", "norm_place": "pre" if norm_first else "post",
                    "activation": activation, "bias": True, "dropout": 0.0})
    copy_torch_transformer(module, reference)
    source, target = texts()
    lengths = torch.tensor([14, 5, 9])
    hidden_behind = torch.arange(14) >= lengths[:, None]

    def embedded(ids):
        table = module._sinusoids(slice(0, ids.shape[1]), module.embed_tokens.weight)[0]
        return module.embed_tokens(ids) * 32**0.5 + table

    later = nn.Transformer.generate_square_subsequent_mask(12)
    expected = reference(embedded(source), embedded(target), tgt_mask=later, src_key_padding_mask=hidden_behind,
                         memory_key_padding_mask=hidden_behind)
    found = module.hidden_states(target, module.encode(source, lengths))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def copy_torch_transformer(module, reference):
    """The weights of ``reference`` into ``module``."""
    def attention(ours, theirs):
        pairs = [(ours.o_proj, theirs.out_proj.weight, theirs.out_proj.bias)]
        if hasattr(ours, "qkv_proj"):
            pairs.append((ours.qkv_proj, theirs.in_proj_weight, theirs.in_proj_bias))
        else:
            width = theirs.embed_dim
            pairs.append((ours.q_proj, theirs.in_proj_weight[:width], theirs.in_proj_bias[:width]))
            pairs.append((ours.kv_proj, theirs.in_proj_weight[width:], theirs.in_proj_bias[width:]))
        for linear, weight, bias in pairs:
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)

    with torch.no_grad():
        for stack in ("encoder", "decoder"):
            ours, theirs = getattr(module, stack), getattr(reference, stack)
            ours.norm.load_state_dict(theirs.norm.state_dict())
            for mine, other in zip(ours.layers, theirs.layers, strict=True):
                attention(mine.self_attn, other.self_attn)
                mine.attention_norm.load_state_dict(other.norm1.state_dict())
                last = other.norm2
                if stack == "decoder":
                    attention(mine.cross_attn, other.multihead_attn)
                    mine.cross_norm.load_state_dict(other.norm2.state_dict())
                    last = other.norm3
                mine.mlp_norm.load_state_dict(last.state_dict())
                mine.mlp.up_proj.load_state_dict(other.linear1.state_dict())
                mine.mlp.down_proj.load_state_dict(other.linear2.state_dict())


def test_dropout_acts_while_training_only():
    rates = {"dropout": 0.3, "attention_dropout": 0.3, "activation_dropout": 0.3}
    source, target = texts()
    for name, rate in rates.items():
        module = model({}, **{name: rate})
        with torch.no_grad():
            assert torch.equal(module(source, None, target), module(source, None, target))
            module.train()
            assert not torch.equal(module(source, None, target), module(source, None, target))


def test_the_stages_of_the_decoder_follow_the_encoder_s():
    heard = []

    class Listener:
        def mark(self, stage, layer=None):
            heard.append((stage, layer))

    module = model({})
    source, target = texts()
    with torch.no_grad(), marking(Listener()):
        memory = module.encode(source)
        n_encoder = len(heard)
        module.logits(module.hidden_states(target, memory))
    encoder, decoder = heard[:n_encoder], heard[n_encoder:]
    assert {layer for stage, layer in encoder if stage is Stage.ATTENTION} == {0, 1}
    assert [layer for stage, layer in encoder if stage is Stage.CROSS_ATTENTION] == [2, 3, 4]
    assert [layer for stage, layer in decoder if stage is Stage.CROSS_ATTENTION] == [2, 3, 4]
    assert {layer for stage, layer in decoder if stage is Stage.FFN} == {2, 3, 4}
    assert decoder[-1] == (Stage.HEAD, None)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fresh_model_starts_the_same_for_the_same_seed_and_trains_after_inference(options):
    a, b = (EncoderDecoder(EncoderDecoderConfig(**(SHAPE | options))).initialise(5) for _ in range(2))
    source, target = texts()
    with torch.inference_mode():
        assert torch.equal(a(source, None, target), b(source, None, target))
    a(source, None, target).square().sum().backward()
    assert all(p.grad is not None for p in a.parameters())


class NoAssets:
    def save(self, folder):
        """Nothing belongs to it."""


@pytest.mark.parametrize("options", OPTIONS)
def test_a_saved_model_is_the_same_when_loaded(options, tmp_path):
    module = model(options)
    save_model(tmp_path / "m", module, NoAssets())
    loaded = load_module(tmp_path / "m", device="cpu")
    source, target = texts()
    assert loaded.config == module.config
    with torch.no_grad():
        assert torch.equal(loaded(source, None, target), module(source, None, target))
    assert loaded.n_parameters() == module.n_parameters()


def test_texts_that_are_too_long_are_refused():
    module = model({})
    source, _ = texts()
    with pytest.raises(ConfigError, match="15 tokens is longer than the 14"):
        module.encode(torch.zeros(1, 15, dtype=torch.long))
    with pytest.raises(ConfigError, match="targets of 12"):
        module(source, None, torch.zeros(3, 13, dtype=torch.long))


@pytest.mark.parametrize(("options", "named"), [
    ({"n_kv_heads": 3}, "n_kv_heads"), ({"head_dim": 7}, "head_dim"), ({"dropout": 1.0}, "dropout"),
    ({"eos_id": 29}, "eos_id"), ({"n_decoder_layers": 0}, "n_decoder_layers"), ({"relative_buckets": 6}, "buckets"),
    ({"width": 33, "positions": "sinusoidal"}, "width"), ({"relative_distance": 16}, "relative_distance"),
])
def test_contradictory_configs_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        EncoderDecoderConfig(**(SHAPE | options))


def test_a_large_vocabulary_has_the_same_loss():
    module = model({}, vocab_size=2100)
    torch.manual_seed(0)
    hidden, targets = torch.randn(40, 32), torch.randint(0, 2100, (40,))
    expected = nn.functional.cross_entropy(module.lm_head(hidden), targets, label_smoothing=0.1)
    torch.testing.assert_close(module.loss(hidden, targets, 0.1), expected)
