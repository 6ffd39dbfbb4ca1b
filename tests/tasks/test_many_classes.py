"""A classifier of ten thousand classes: trained, evaluated a few texts at a time, and told of on a page."""

from tickwise.tasks import classifier as classifier_module
from tickwise.tasks.classifier import Classifier
from tickwise.tasks.classify import open_examples, train_classifier
from tickwise.tasks.classify_config import ClassifyConfig, FeatureOptions
from tickwise.tasks.classify_report import write_evaluation_report, write_training_report


def test_ten_thousand_classes(tmp_path, monkeypatch):
    def rows(numbers, n):
        return "".join(f"word{i} in row {j}\tclass {i}\n" for i in range(n) for j in numbers)

    (tmp_path / "a.tsv").write_text(rows((1, 2), 10_000), encoding="utf-8")
    (tmp_path / "test.tsv").write_text(rows((3,), 500), encoding="utf-8")
    config = ClassifyConfig(train=(str(tmp_path / "a.tsv"),), test=(str(tmp_path / "test.tsv"),), out=tmp_path / "x",
                            max_steps=1, refit=False, batch_size=64,
                            features=FeatureOptions(word_ngrams=1, max_characters=0, most=20))
    data = open_examples(config)
    assert len(data.labels) == 10_000
    assert len(data.dev) > 500
    sizes = []
    probabilities = Classifier.probabilities
    monkeypatch.setattr(classifier_module, "_PROBABILITIES_AT_ONCE", 10**6)
    monkeypatch.setattr(Classifier, "probabilities", lambda self, texts: (sizes.append(len(texts)),
                                                                         probabilities(self, texts))[1])
    result = train_classifier(config)
    assert (result.test.n, result.dev.n) == (500, len(data.dev))
    assert (max(sizes), sum(sizes)) == (100, 500 + len(data.dev))
    assert result.test.pairs[:, 2].sum() == 500
    assert len(result.classifier.predict(["word7 in row 3"])[0].probabilities) == 10_000
    write_training_report(tmp_path / "a.html", result, "many")
    write_evaluation_report(tmp_path / "b.html", result.classifier, result.test, data.test, "many")
    assert max((tmp_path / name).stat().st_size for name in ("a.html", "b.html")) < 100_000
