"""The table of families: every one has its code, and its verbs exist."""

import pytest
import torch

from tickwise.cli import VERBS
from tickwise.models.families import FAMILIES, USED_BY


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_family_names_its_code_and_verbs_that_exist(model_type):
    family = FAMILIES[model_type]
    assert family.config_class().__name__ == family.config_name
    assert issubclass(family.module_class(), torch.nn.Module)
    assert set(USED_BY[family.purpose]) <= set(VERBS)


@pytest.mark.parametrize("model_type", [
    name for name, family in FAMILIES.items() if family.purpose not in ("language model", "text-to-text model")])
def test_models_that_answer_in_one_pass_say_what_they_take(model_type):
    """So that ``disasm`` can list them."""
    assert callable(getattr(FAMILIES[model_type].module_class(), "example_inputs", None))
