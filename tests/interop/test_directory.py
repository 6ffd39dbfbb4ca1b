"""What is said to folders that hold no model."""

import pytest

from tickwise.core.errors import CheckpointError
from tickwise.interop.directory import resolve_model_path


def test_a_folder_of_another_format_is_told_what_it_holds_and_what_is_expected(tmp_path):
    for name in ("stories.bin", "tok512.bin"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError) as problem:
        resolve_model_path(tmp_path)
    assert str(problem.value) == (
        f"{tmp_path}: not a model directory (config.json is missing); found stories.bin, tok512.bin, expected the "
        "Hugging Face layout: config.json, model.safetensors and tokenizer.json"
    )


def test_a_long_list_of_files_is_cut_and_an_empty_folder_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="found nothing, expected"):
        resolve_model_path(tmp_path)
    for index in range(7):
        (tmp_path / f"part{index}").touch()
    with pytest.raises(CheckpointError, match="found part0, part1, part2, part3 and 3 more, expected"):
        resolve_model_path(tmp_path)
