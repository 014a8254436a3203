"""Vocabularies are learnt the same way every time, fit what was asked, and are read by transformers as they are."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from bert.config import from_dict
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.config import PretrainConfig
from pretrain.corpus.config import CorpusConfig, TokenizerConfig
from pretrain.corpus.vocabulary import SPECIAL, draw_sample, measure, train
from pretrain.tokenizer import ensure_tokenizer

TEXT = """
The curious fox jumped over the lazy dogs. Dogs are lazier than foxes, and jumping foxes are curious!
Çà et là, les élèves naïfs étudient l'été. 北京是中国的首都。東京は日本の首都です。
It costs $12.50, or 10% less; see www.example.com for the lowest prices of foxes and jumping dogs.
"""


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXT * 30, encoding="utf-8")
    return CorpusConfig([str(tmp_path / "corpus.txt")], "lines", heldout_share=0.0)


@pytest.mark.parametrize(
    "algorithm, size", [("wordpiece", 220), ("wordpiece", 300), ("bpe", 300), ("unigram", 180)]
)
def test_transformers_reads_what_was_learnt(algorithm, size, corpus, tmp_path):
    tokenizer = train(
        TokenizerConfig(algorithm=algorithm, vocab_size=size, min_frequency=1), draw_sample(corpus, 10**6)
    )
    assert tokenizer.vocab_size <= size
    assert tokenizer.tokens(range(5)) == SPECIAL
    tokenizer.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in [*TEXT.strip().splitlines(), "unseen żółw [MASK]"]:
        assert theirs(text)["input_ids"] == tokenizer.encode_batch([text])[0]
    figures = measure(tokenizer, TEXT.splitlines())
    assert 1 <= figures["tokens_per_word"] < 4 and figures["unknown_share"] == 0


def test_wordpiece_is_what_bert_expects(corpus):
    sample = draw_sample(corpus, 10**6)
    uncased = train(TokenizerConfig(vocab_size=400, min_frequency=1), sample)
    tokens = uncased.tokens(uncased.encode_batch(["Élèves 北京 jumping dogs"], special_tokens=False)[0])
    assert tokens[:3] == ["eleves", "北", "京"]
    assert not [
        token for token in uncased.backend.get_vocab() if token.startswith("##") and token[2:] in "北.,!$"
    ]
    cased = train(
        TokenizerConfig(vocab_size=400, min_frequency=1, lowercase=False, cjk_spacing=False), sample
    )
    assert "élèves" in cased.backend.get_vocab() and "北京是中国的首都" not in cased.tokens(range(5))
    assert any(len(token.removeprefix("##")) > 1 and "北" in token for token in cased.backend.get_vocab())


@pytest.mark.parametrize("algorithm", ["wordpiece", "bpe"])
def test_learning_is_repeatable_in_another_process(algorithm, corpus, tmp_path):
    values = {"corpus.files": corpus.files, "corpus.format": "lines", "corpus.heldout_share": 0.0}
    values |= {"tokenizer.vocab_size": 300, "tokenizer.algorithm": algorithm}
    words = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    here = ensure_tokenizer(from_dict(PretrainConfig, values | {"run_dir": str(tmp_path / "here")}))
    (tmp_path / "config.yaml").write_text("{}")
    command = [sys.executable, "-m", "pretrain.tokenizer", str(tmp_path / "config.yaml")]
    subprocess.run([*command, f"run_dir={tmp_path}/there", *words], check=True, stdout=subprocess.DEVNULL)
    there = tmp_path / "there" / "tokenizer"
    assert (there / "tokenizer.json").read_bytes() == (here / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("algorithm, size", [("wordpiece", 60), ("bpe", 200), ("unigram", 30)])
def test_a_vocabulary_smaller_than_its_alphabet_is_refused(algorithm, size, corpus):
    with pytest.raises(UserError, match=rf"tokenizer.vocab_size={size} is too small .* takes \d+ entries"):
        train(
            TokenizerConfig(algorithm=algorithm, vocab_size=size, min_frequency=1), draw_sample(corpus, 10**6)
        )


@pytest.mark.parametrize("algorithm", ["wordpiece", "bpe", "unigram"])
def test_lower_case_with_accents(algorithm, corpus):
    """What the doctor advises for German, where ü is not u."""
    config = TokenizerConfig(algorithm=algorithm, vocab_size=400, min_frequency=1, strip_accents=False)
    tokenizer = train(config, draw_sample(corpus, 10**6))
    assert tokenizer.backend.normalizer.normalize_str("Élèves NAÏFS") == "élèves naïfs"


def test_rare_characters_are_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("common text\n" * 1000 + "rare ☃ here ☃\n", encoding="utf-8")
    sample = draw_sample(CorpusConfig([str(tmp_path / "a.txt")], "lines", heldout_share=0.0), 10**6)
    most = train(TokenizerConfig(vocab_size=100, character_coverage=0.999), sample)
    every = train(TokenizerConfig(vocab_size=100, character_coverage=1.0), sample)
    assert "☃" not in most.backend.get_vocab() and "☃" in every.backend.get_vocab()
    assert most.tokens(most.encode_batch(["☃"], special_tokens=False)[0]) == ["[UNK]"]
    assert measure(most, ["☃ text"])["unknown_share"] == 0.5


def test_the_sample_is_bounded_and_drawn_from_all_files(tmp_path):
    for n in range(5):
        (tmp_path / f"{n}.jsonl").write_text((json.dumps({"text": f"file{n} " * 20}) + "\n") * 500)
    config = CorpusConfig([str(tmp_path)], heldout_share=0.0)
    sample = draw_sample(config, 60_000)
    assert 50_000 < sample.size < 70_000
    assert {paragraph.split()[0] for paragraph in sample.paragraphs()} == {f"file{n}" for n in range(5)}


def test_held_out_documents_measure_and_do_not_train(tmp_path):
    lines = [f"document number {n} is about {n * 7919 % 1000}" for n in range(300)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    sample = draw_sample(CorpusConfig([str(tmp_path / "a.txt")], "lines", heldout_share=0.2), 10**6)
    assert 30 < len(sample.heldout) < 100
    assert sorted([*sample.paragraphs(), *sample.heldout]) == sorted(lines)


def test_a_tokenizer_is_taken_over(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "hello", "##s"]) + "\n")
    config = from_dict(
        PretrainConfig, {"run_dir": str(tmp_path / "run"), "tokenizer.from": str(tmp_path / "vocab.txt")}
    )
    folder = ensure_tokenizer(config)
    assert ensure_tokenizer(config) == folder == Path(tmp_path / "run" / "tokenizer")
    assert Tokenizer.load(folder).encode_batch(["Hellos"], special_tokens=False) == [[5, 6]]


def test_a_corpus_without_a_document_is_refused_with_the_reasons(tmp_path):
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"text " * 999)[:20])
    config = PretrainConfig(run_dir=str(tmp_path / "run"), corpus=CorpusConfig(files=[str(tmp_path / "*")]))
    with pytest.raises(UserError, match=r"no document .*\(1 × damaged or truncated file\)"):
        ensure_tokenizer(config)
    assert not (tmp_path / "run").exists()
