"""The tagger: padding, words of any kind, and what its CRF allows."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.data.tagged import iobes_labels
from tickwise.models.tagger import CharacterCNN, Tagger, TaggerConfig, allowed_by_iobes

LABELS = iobes_labels(["LOC", "PER"])


@pytest.fixture(params=[1, 2], ids=["one layer", "two layers"])
def tagger(request):
    config = TaggerConfig(labels=LABELS, feature_sizes=(20, 9), feature_widths=(6, 3), n_characters=12,
                          character_width=4, character_filters=5, hidden=7, n_layers=request.param)
    return Tagger(config).initialise(2).eval()


def test_a_sentence_has_the_same_scores_alone_and_beside_a_longer_one(tagger):
    generator = torch.Generator().manual_seed(1)
    features = torch.randint(1, 9, (2, 6, 2), generator=generator)
    characters = torch.randint(1, 12, (2, 6, 4), generator=generator)
    features[1, 3:] = 0
    characters[1, 3:] = 0
    characters[1, 0, 2:] = 0
    both = tagger(features, characters, torch.tensor([6, 3]))
    alone = tagger(features[1:, :3], characters[1:, :3], torch.tensor([3]))
    torch.testing.assert_close(both[1, :3], alone[0])


def test_the_characters_behind_a_word_count_for_nothing():
    cnn = CharacterCNN(12, 4, 5)
    with torch.no_grad():
        cnn.convolution.bias.fill_(3.0)  # a padded place would answer with at least this
        word = torch.tensor([[[4, 7]]])
        longer = torch.tensor([[[4, 7, 0, 0, 0, 0]]])
        torch.testing.assert_close(cnn(word), cnn(longer))


def test_which_tag_may_follow_which():
    allowed = allowed_by_iobes(LABELS)
    names = [*LABELS, "border"]
    begins = {"O", "B-LOC", "B-PER", "S-LOC", "S-PER", "border"}
    for before, row in zip(names, allowed, strict=True):
        inside = before[:2] in ("B-", "I-")
        expected = {f"I{before[1:]}", f"E{before[1:]}"} if inside else begins
        assert {after for after, may in zip(names, row, strict=True) if may} == expected, before


def test_the_same_seed_gives_the_same_weights(tagger):
    again = Tagger(tagger.config).initialise(2)
    other = Tagger(tagger.config).initialise(3)
    for (name, mine), same in zip(tagger.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, same), name
    assert not torch.equal(tagger.head.weight, other.head.weight)
    assert tagger.n_parameters() == sum(p.numel() for p in tagger.parameters())


def test_dropout_is_for_training_only(tagger):
    inputs = torch.ones(1, 3, 2, dtype=torch.long), torch.ones(1, 3, 2, dtype=torch.long), torch.tensor([3])
    assert torch.equal(tagger(*inputs), tagger(*inputs))
    tagger.train()
    assert not torch.equal(tagger(*inputs), tagger(*inputs))


@pytest.mark.parametrize("change", [{"feature_widths": (1,)}, {"hidden": 0}, {"dropout": 1.0}, {"labels": ("O", "O")}])
def test_configs_that_contradict_are_refused(tagger, change):
    import dataclasses

    with pytest.raises(ConfigError):
        dataclasses.replace(tagger.config, **change)


def test_its_program_can_be_listed_without_data(tagger):
    from tickwise.profiling.program import list_program

    ids, letters = torch.ones(2, 5, 2, dtype=torch.long), torch.ones(2, 5, 4, dtype=torch.long)
    assert torch.equal(tagger(ids, letters), tagger(ids, letters, torch.tensor([5, 5])))
    stages = {row.stage for row in list_program(tagger, ids, letters).instructions}
    assert {"embed", "recurrent", "head"} <= {str(stage) for stage in stages}
