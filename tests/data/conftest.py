import random
from pathlib import Path

import pytest

from small_documents import sentence


@pytest.fixture
def documents_with_copies(tmp_path) -> tuple[Path, list[str]]:
    """300 different documents, 60 exact and 60 near copies of some of them, in random order, one a line."""
    rng = random.Random(3)
    originals = [sentence(rng) for _ in range(300)]
    near = [" ".join([*text.split()[:-1], "changed"]) for text in rng.sample(originals, 60)]
    texts = originals + rng.sample(originals, 60) + near
    rng.shuffle(texts)
    file = tmp_path / "copies.txt"
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file, texts
