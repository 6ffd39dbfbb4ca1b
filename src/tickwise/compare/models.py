"""Models of other folders that do a job."""

from pathlib import Path

from tickwise.compare.contestants import Labeller, Writer
from tickwise.compare.learners import training_of
from tickwise.compare.nano_sort import MODEL_FILE, load_nano_sort
from tickwise.engine.language_model import LanguageModel, load

SORTED_LETTERS = 6


def given_model(path: Path, *, template: str, most_tokens: int) -> Writer | Labeller:
    """Any model directory: one that writes, one that labels, or the published sorting model.

    ``CheckpointError`` for a directory that is missing, damaged, or of another purpose.
    """
    from tickwise.interop.directory import read_config, resolve_model_path
    from tickwise.tasks.classifier import Classifier

    if (path / MODEL_FILE).is_file():
        module, tokenizer = load_nano_sort(path)
        return Writer(LanguageModel(module, tokenizer, path), "gpt-nano-sort", most_tokens=SORTED_LETTERS)
    family, _ = read_config(resolve_model_path(path))
    if family.purpose == "classifier":
        return Labeller(Classifier.load(path, device="cpu"), path.name, training_of(path))
    model = load(path, device="cpu")
    return Writer(model, path.name, template="{}" if model.has_source else template, most_tokens=most_tokens,
                  training=training_of(path))
