"""The script of docs/embedding-models.md: an encoder learns which texts belong together."""

import json
import random
from pathlib import Path

import pytest

import bert
from tests.docs.test_demo import load

WORDS = {f"{a}{b}": f"{b}{a}{a}" for a in "bdfgklmn" for b in ("a", "e", "i", "o", "u")}
"""words of titles, and what abstracts call the same"""


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A random encoder: for it a title and its abstract have nothing in common."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *WORDS.values()]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = bert.Tokenizer.load(tmp_path / "vocab.txt")
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64, "max_positions": 16}
    config = bert.EncoderConfig(vocab_size=tokenizer.vocab_size, **shape)
    bert.save(bert.build(config, "MaskedLanguageModel"), tmp_path / "encoder", tokenizer)
    return tmp_path / "encoder"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    draw = random.Random(0)
    chosen = [draw.sample(list(WORDS), 4) for _ in range(600)]
    rows = [{"title": " ".join(c), "abstract": " ".join(WORDS[w] for w in draw.sample(c, 4))} for c in chosen]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path / "pairs.jsonl"


@pytest.mark.slow
def test_the_partner_of_a_text_is_found_after_the_training(
    encoder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, folder = load("embedding_model"), tmp_path / "embedding"
    words = [
        str(encoder),
        str(pairs),
        str(folder),
        "heldout=50",
        "epochs=4",
        "batch=50",
        "learning_rate=3e-3",
    ]
    script.main(words)
    printed = capsys.readouterr().out
    before, after = (float(figure) for figure in printed.partition("accuracy@1)")[2].split()[1:4:2])
    assert before < 0.1 and after > 0.5, printed
    assert "among 50 texts" in printed
    vectors = bert.embed(folder, ["ba de fi", "abb edd iff", "ogg ull ann"], normalise=True)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["heldout=400"], "pairs, too few to hold out 400; give heldout=N"),
        (
            ["second=text"],
            "'text' is not there, only title, abstract; first=NAME and second=NAME name the columns",
        ),
        (["here"], "three words are needed; usage: python demo/embedding_model.py RUN PAIRS OUTPUT"),
    ],
)
def test_a_mistake_is_one_line(pairs: Path, tmp_path: Path, words: list[str], error: str) -> None:
    script = load("embedding_model")
    with pytest.raises(bert.UserError, match=error.replace("[", r"\[")):
        script.main([str(tmp_path / "encoder"), str(pairs), str(tmp_path / "out"), *words])
    assert not (tmp_path / "out").exists()
