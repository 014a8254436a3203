"""New words: they enter the tokenizer's own model where other words keep their ids, and the best ones are found."""

import json
from pathlib import Path

import pytest
import transformers

import bert
from benchmarks.tokenizer_kinds import KINDS
from bert.errors import UserError, run_command
from bert.model.config import EncoderConfig
from bert.tokenizer import Tokenizer
from pretrain import prepare
from pretrain import tokenizer as command
from pretrain.new_words import add_words, read_words, suggest_words

TEXT = [
    "The immune system of the patients reacts to vaccines, antibodies and many other things.",
    "An immunoglobulin is an antibody; immunology studies how antibodies and Vaccines work.",
    "Die Größe der Häuser (größer als früher) ist schön. Привет, мир! 北京是中国的首都。",
] * 6
NEW = ["immunotherapy", "glioblastoma", "Häuschen", "in vitro"]
OWN = {"BERT, uncased", "BERT, cased", "RoBERTa", "ModernBERT", "Llama 3", "XLM-R, CamemBERT", "ALBERT"}


@pytest.mark.parametrize("kind", KINDS)
def test_new_words_are_tokens_and_other_words_keep_their_ids(kind: str, tmp_path: Path) -> None:
    before = Tokenizer(KINDS[kind](TEXT, 500))
    after, how = add_words(before, NEW)
    in_model = [word for word in NEW if word != "in vitro"] if kind in OWN else []
    assert (f"{len(in_model)} in the vocabulary of its" in how) == bool(in_model)
    assert "as added tokens" in how
    old, new = before.backend.get_vocab(), after.backend.get_vocab()
    assert old.items() <= new.items() and after.vocab_size == len(set(new.values())) > before.vocab_size
    for word in NEW[:3]:
        ids = after.encode_batch([f"of {word}, of"], special_tokens=False)[0]
        assert sum(id >= before.vocab_size for id in ids) == 1
    words = {word for line in TEXT for word in line.split()} | {"immunotherap", "gliom", "Haus", "häuslich"}
    lines = [
        *TEXT,
        *words,
        *(f" {word} x" for word in words),
        " ".join(sorted(words)),
        "x\n\n  y <mask> [MASK]",
    ]
    assert after.encode_batch(lines) == before.encode_batch(lines)
    after.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*lines, *NEW, "We tried immunotherapy in vitro; a glioblastoma (Häuschen) immunotherapy"]
    assert theirs(texts)["input_ids"] == after.encode_batch(texts)
    assert Tokenizer.load(tmp_path).digest == after.digest


def test_a_longer_word_that_begins_with_a_new_one_is_divided_after_it() -> None:
    before = Tokenizer(KINDS["BERT, uncased"](TEXT, 150))
    after, how = add_words(before, ["immunoglo", "Immunoglo"])
    assert how == "1 in the vocabulary of its WordPiece, 1 known before"
    tokens = after.tokens(after.encode_batch(["Immunoglobulin"], special_tokens=False)[0])
    assert (
        tokens[0] == "immunoglo" and "".join(token.removeprefix("##") for token in tokens) == "immunoglobulin"
    )


def test_words_that_would_gain_most() -> None:
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "cat",
        *(f"{m}{c}" for c in "abcdost" for m in ("", "##")),
    ]
    from bert import tokenizer_files

    numbered = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(tokenizer_files.word_piece(numbered, {"do_lower_case": True}, {}))
    text = ["a cat, Toads (toads) TOADS toads.", "“toads” a-b 12 cats coast zzz 北京北京"] * 5 + [
        "coast dot dot"
    ] * 2
    words, saved = suggest_words(tokenizer, text, 10)
    assert [(each.word, each.times, each.saved) for each in words] == [
        ("toads", 25, 100),
        ("coast", 7, 28),
        ("cats", 5, 5),
    ]
    assert words[0].pieces == ["t", "##o", "##a", "##d", "##s"]
    total = sum(map(len, tokenizer.encode_batch(text, special_tokens=False)))
    after, _ = add_words(tokenizer, [each.word for each in words])
    assert saved == pytest.approx(1 - sum(map(len, after.encode_batch(text, special_tokens=False))) / total)
    assert [each.word for each in suggest_words(tokenizer, text, 1)[0]] == ["toads"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(KINDS["BERT, uncased"](TEXT, 150))
    shape = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8
    )
    bert.save(bert.build(shape, "MaskedLanguageModel"), tmp_path / "model", tokenizer)
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXT))
    return tmp_path / "model"


def test_the_command_writes_what_model_new_words_takes(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = checkpoint.parent, checkpoint.parent / "run"
    (folder / "c.yaml").write_text("{}")
    words = [
        f"{folder}/c.yaml",
        f"run_dir={run}",
        f"corpus.files={folder}/text.jsonl",
        "corpus.heldout_share=0",
    ]
    words += [f"model.from={checkpoint}", "prepare.workers=1", "prepare.deduplicate=off"]
    assert run_command(command.main, [*words, "suggest_words=3"]) == 0
    shown = capsys.readouterr().out
    file = run / "new-words.txt"
    assert "tokens saved" in shown and f"model.new_words={file}" in shown and not (run / "tokenizer").exists()
    found = read_words(file)
    assert len(found) == 3 and "immunology" in found
    # The tokenizer of a continued run is the checkpoint's, also if the store is prepared before the run.
    assert run_command(prepare.main, [*words, f"model.new_words={file}"]) == 0
    assert "3 new words: 3 in the vocabulary of its WordPiece" in capsys.readouterr().out
    taken, old = Tokenizer.load(run), Tokenizer.load(checkpoint)
    assert taken.vocab_size == old.vocab_size + 3
    assert old.backend.get_vocab().items() <= taken.backend.get_vocab().items()
    # A tokenizer that was taken over without them is not taken for one that has them, nor the other way round.
    assert run_command(prepare.main, words) == 2
    assert f"made otherwise: model.new_words {file} → None; delete it" in capsys.readouterr().err


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"empty.txt has no words"):
        read_words(tmp_path / "empty.txt")
    with pytest.raises(UserError, match=r"none.txt cannot be read"):
        read_words(tmp_path / "none.txt")
    (tmp_path / "text.txt").write_text("a b c\n")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    (tmp_path / "c.yaml").write_text("{}")
    words = [
        f"{tmp_path}/c.yaml",
        f"run_dir={tmp_path}/run",
        f"corpus.files={tmp_path}/text.txt",
        "suggest_words=3",
    ]
    assert (
        run_command(command.main, [*words, "corpus.heldout_share=0", f"tokenizer.from={tmp_path}/vocab.txt"])
        == 2
    )
    assert "no word of the corpus occurs 5 times" in capsys.readouterr().err
