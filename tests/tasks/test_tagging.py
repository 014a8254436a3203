"""Token classification: files, words and pieces, entities, training, and what comes out of it."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bert
from bert.data.entities import entities_of, first_pieces, joined, main_scheme, scheme_of, words_of
from bert.errors import UserError
from bert.model.config import Labels
from bert.tokenizer import Tokenizer
from finetune import predict
from finetune.config import KINDS, BatchConfig, TaskConfig
from finetune.data import load_task
from finetune.evaluate import outputs_of
from finetune.splits import Split
from finetune.tasks.tokens import tags_of
from finetune.train import train

TAGS = ["O", "B-X", "I-X", "B-Y", "I-Y", "E-X", "S-Y", "S-X", "E-Y"]
KIND = KINDS["token_classification"]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(*[st.sampled_from(TAGS)] * 2), min_size=1, max_size=9), min_size=1, max_size=6
    )
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_entities_and_their_scores_are_those_of_seqeval(sentences: list[list[tuple[str, str]]]) -> None:
    from seqeval import metrics
    from seqeval.metrics.sequence_labeling import get_entities

    pairs = [tuple(map(list, zip(*sentence, strict=True))) for sentence in sentences]
    for tags in (tags for pair in pairs for tags in pair):
        expected = [(label, start, end + 1) for label, start, end in get_entities(tags)]
        assert [tuple(entity) for entity in entities_of(tags)[0]] == expected
    labels = Labels(tuple(TAGS))
    right, found = ([[TAGS.index(tag) for tag in tags] for tags in column] for column in zip(*pairs))
    split = Split(
        [words_of("w " * len(tags)) for tags in right], None, KIND.targets(list(map(np.array, right)))
    )
    data = KIND.encode(split, _plain_tokenizer(), BatchConfig())
    outputs = torch.zeros(len(data.ids.values), len(TAGS))
    outputs[torch.from_numpy(data.labels >= 0)] = torch.eye(len(TAGS))[np.concatenate(found)] * 9
    measured, truth, guess = KIND.measure(data, outputs, labels), *zip(*pairs)
    assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
    for name in ("f1", "precision", "recall"):
        expected = getattr(metrics, f"{name}_score")(truth, guess, zero_division=0)
        assert measured[name] == pytest.approx(expected)
    report = metrics.classification_report(truth, guess, output_dict=True, zero_division=0)
    for label, row in KIND.details(data, outputs, labels)["types"].items():
        theirs = report.get(label, {"f1-score": 0, "precision": 0, "recall": 0, "support": 0})
        assert row["f1"] == pytest.approx(theirs["f1-score"]) and row["entities"] == theirs["support"]


def _plain_tokenizer() -> Tokenizer:
    import tokenizers
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcw.,", "##a", "##b", "##c"]
    backend = tokenizers.Tokenizer(WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.pre_tokenizer = BertPreTokenizer()
    return Tokenizer(backend)


def test_wrong_tags_are_repaired_and_counted() -> None:
    found, repaired = entities_of(["O", "I-X", "I-X", "I-Y", "B-Y", "O", "I-Y"])
    assert [(e.label, e.start, e.end) for e in found] == [("X", 1, 3), ("Y", 3, 4), ("Y", 4, 5), ("Y", 6, 7)]
    assert repaired == 3
    assert scheme_of(["O", "B-X", "I-X"]) == "BIO" and scheme_of(["O", "S-X"]) == "BIOES"
    assert scheme_of(["NN", "VB", "O"]) is None


def test_words_of_a_text() -> None:
    text = words_of("Dr. Müller's 中国 is 5%")
    assert text.words == ["Dr", ".", "Müller", "'", "s", "中", "国", "is", "5", "%"]
    assert all(text.text[start:end] == word for word, (start, end) in zip(text.words, text.offsets or []))
    assert words_of("Hausmeister", [4]).words == ["Haus", "meister"]


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "unigram"])
def test_the_first_piece_of_each_word(kind: str) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    words = ["abc", ".", "cab,", "é", "(a)", "bb"]
    if kind == "wordpiece":
        tokenizer = _plain_tokenizer()
    else:
        backend = tokenizers.Tokenizer(models.BPE() if kind == "bytes" else models.Unigram())
        byte = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = byte if kind == "bytes" else pre_tokenizers.Metaspace()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        make = trainers.BpeTrainer if kind == "bytes" else trainers.UnigramTrainer
        more = {} if kind == "bytes" else {"unk_token": "<unk>"}
        trainer = make(vocab_size=300, special_tokens=special, initial_alphabet=byte.alphabet(), **more)
        backend.train_from_iterator([joined(words)] * 5, trainer)
        backend.decoder = decoders.ByteLevel() if kind == "bytes" else decoders.Metaspace()
        tokenizer = Tokenizer(backend)
    encoding = tokenizer.encodings([joined(words)])[0]
    first = first_pieces(encoding, words)
    assert first[first >= 0].tolist() == list(range(len(words)))
    for place in np.flatnonzero(first >= 0):
        start, _ = encoding.offsets[place]
        assert joined(words)[start:].lstrip().startswith(words[first[place]][:1])


def test_windows_give_each_word_once_where_most_is_around_it() -> None:
    split = Split([words_of("a b c a b c a b c a")], None, KIND.targets([np.arange(10)]))
    batch = BatchConfig(max_length=8, long_texts="windows", overlap=2)
    data = KIND.encode(split, _plain_tokenizer(), batch)
    assert data.ids.lengths.tolist() == [8, 8] and data.windowed == 1
    assert data.labels.reshape(2, 8).tolist() == [
        [-100, 0, 1, 2, 3, 4, -100, -100],
        [-100, -100, 5, 6, 7, 8, 9, -100],
    ]
    cut = KIND.encode(split, _plain_tokenizer(), BatchConfig(max_length=8))
    assert cut.cut == 1 and (cut.labels >= 0).sum() == 6
    names = Labels(("O", *(f"B-{i}" for i in range(9))))
    answer = next(KIND.answers(cut, torch.eye(10)[np.maximum(cut.labels, 0)], names))
    assert answer["prediction"] == ["O", "B-0", "B-1", "B-2", "B-3", "B-4", "O", "O", "O", "O"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same two sentences in every layout."""
    sentences = [(["good", "a", "b"], ["O", "B-X", "I-X"]), (["bad"], ["O"])]
    contents = {
        "a.txt": "".join("".join(f"{w} NN {t}\n" for w, t in zip(*s)) + "\n" for s in sentences),
        "tags_first.conll": "-DOCSTART- -X-\n\n"
        + "\r\n\r\n".join("\r\n".join(f"{t}\t{w}" for w, t in zip(*s)) for s in sentences),
        "a.jsonl": "".join(json.dumps({"tokens": w, "tags": t}) + "\n" for w, t in sentences),
        "spans.jsonl": json.dumps({"text": "good a b", "spans": [{"start": 5, "end": 8, "label": "X"}]})
        + "\n"
        + json.dumps({"text": "bad", "spans": []})
        + "\n",
        "a.conllu": "# text = good a b\n"
        + "".join(f"{i}\t{w}\t_\t{t}\n" for i, (w, t) in enumerate(zip(*sentences[0]), 1))
        + "1-2\tgooda\t_\t_\n\n1\tbad\t_\tO\n\n",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text, newline="")
    return {name: tmp_path / name for name in contents}


def task(file: Path, **more: Any) -> TaskConfig:
    return TaskConfig(kind="token_classification", train=str(file), validation=str(file), **more)


def test_only_spaces_and_tabs_divide_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("10\u00a0000 B-X\na\u3000b  O \n")
    data = load_task(task(tmp_path / "a.txt"))
    assert data.train.texts[0].words == ["10\u00a0000", "a\u3000b"]


def test_every_layout_reads_the_same_sentences(files: dict[str, Path]) -> None:
    options: dict[str, dict[str, Any]] = {
        "a.txt": {},
        "tags_first.conll": {"token_column": 1, "tag_column": 0},
        "a.jsonl": {},
        "spans.jsonl": {},
        "a.conllu": {"token_column": 1, "tag_column": -1},
    }
    for name, more in options.items():
        data = load_task(task(files[name], **more))
        assert [text.words for text in data.train.texts] == [["good", "a", "b"], ["bad"]], name
        assert data.labels == Labels(("O", "B-X", "I-X")), name
        assert [target.tolist() for target in data.train.targets] == [[0, 1, 2], [0]], name
    data = load_task(task(files["a.txt"], columns=["w", "pos", "ner"], token_column="w", tag_column="ner"))
    assert data.labels == Labels(("O", "B-X", "I-X"))


MISTAKES: list[tuple[str, str, dict[str, Any], str]] = [
    ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}', {}, "line 1: has 2 words and 1 tags"),
    (
        "a.jsonl",
        '{"tokens": ["a", ""], "tags": ["O", "O"]}',
        {},
        "line 1: word 2 of column 'tokens' is empty",
    ),
    ("a.jsonl", '{"tokens": [], "tags": []}', {}, "line 1: has no list of words in column 'tokens'"),
    ("a.jsonl", '{"tokens": ["a"], "tags": [null]}', {}, "line 1: word 1, 'a', has no tag"),
    ("a.jsonl", '{"tokens": ["a"], "tag": ["O"]}', {}, r"there is no column 'tags' \(did you mean tag\?\)"),
    ("a.jsonl", '{"tokens": ["a"], "tags": ["O"]}', {}, "need 2 tags or more, have O"),
    ("a.txt", "a O\nb\n", {}, r"a\.txt, line 2: has 1 columns, not 2 \(0, 1\); .* format=txt"),
    ("a.txt", "a O\n\nb c O\n", {}, r"a\.txt, line 3: has 3 columns, not 2 \(0, 1\)"),
    ("a.txt", "a_O\nb_O\n", {}, "the words are read from column '0', and the tags too"),
    ("a.txt", "a O\nb O\n", {"token_column": -1}, "the words are read from column '1', and the tags too"),
    ("a.txt", "a B-X\nb O\n", {"tag_column": 5}, "there is no column '5'; there are: 0, 1"),
    (
        "a.txt",
        "a B-X\nb O\n",
        {"labels": ["O", "B-Y"]},
        r"line 1: tag 'B-X' is not one of the task's tags: O, B-Y",
    ),
    (
        "a.jsonl",
        '{"text": "ab c", "spans": [[0, 2, "X"], [1, 4, "X"]]}',
        {},
        "entity X at 1:4 overlaps the one",
    ),
    (
        "a.jsonl",
        '{"text": "ab c", "spans": [[3, 9, "X"]]}',
        {},
        "entity X at 3:9 leaves the text, which has 4 ch",
    ),
    ("a.jsonl", '{"text": "ab c", "spans": [[2, 3, "X"]]}', {}, "entity X at 2:3 has no word"),
    ("a.jsonl", '{"text": "ab c", "spans": [[2]]}', {}, r"line 1: entity \[2\] is not \{start, end, label\}"),
    ("a.jsonl", '{"text": "ab c"}', {}, "there is no column 'spans'"),
    ("a.jsonl", '{"text": " ", "spans": []}', {}, "line 1: has no text in column 'text'"),
]


@pytest.mark.parametrize(("name", "content", "values", "message"), MISTAKES)
def test_mistakes_name_file_and_line(
    tmp_path: Path, name: str, content: str, values: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_text(content + "\n")
    with pytest.raises(UserError, match=message) as caught:
        load_task(task(tmp_path / name, **values))
    assert "\n" not in str(caught.value)


def test_a_stray_tag_does_not_make_plain_tags_of_entities(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a B-X\nb I-X\n\nc B-\nd O\n\ne Z\n\nf B-X\n")
    with pytest.raises(UserError, match=r"line 4: tag 'B-' is not one of the task's tags: O, B-X, I-X"):
        load_task(task(tmp_path / "a.txt"))
    data = load_task(task(tmp_path / "a.txt", bad_rows="skip"))
    assert data.labels.names == ("O", "B-X", "I-X")
    assert any("2 rows of train are left out" in note for note in data.notes)
    assert main_scheme(["O", "NOUN", "VERB"]) is None, "tags of parts of speech"


def test_a_tag_that_train_lacks_is_named_by_file_and_line(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("a NN O\n\nb NN B-Z\n")
    config = TaskConfig(
        kind="token_classification", train=str(files["a.txt"]), validation=str(tmp_path / "v.txt")
    )
    with pytest.raises(
        UserError, match=r"v\.txt, line 3: tag 'B-Z' is not one of the task's tags: O, B-X, I-X"
    ):
        load_task(config)


def test_tags_of_entities_that_divide_words() -> None:
    text = words_of("Hausmeister da", [4])
    assert tags_of(text, [[0, 4, "X"]], text.text) == ["B-X", "O", "O"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good and bad are entities of two types, `good` with the l behind it."""
    generator = np.random.default_rng(0)
    lines = []
    for _ in range(60):
        for word in generator.choice([*"abcdef", "good", "bad"], generator.integers(2, 9)):
            lines += {"good": ["good B-P", "l I-P"], "bad": ["bad B-N"]}.get(word, [f"{word} O"])
        lines.append("")
    path = tmp_path_factory.mktemp("ner") / "train.conll"
    path.write_text("\n".join(lines) + "\n")
    return path


def words_for(sentences: Path, *more: str) -> list[str]:
    return [
        f"task.train={sentences}",
        f"task.validation={sentences}",
        "task.kind=token_classification",
        "optimizer.learning_rate=6e-3",
        *more,
    ]


@pytest.fixture(scope="module")
def tagged(workshop: Any, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tagger") / "run"
    train(workshop.configured(run, *words_for(sentences, f"task.test={sentences}")))
    return run


def test_a_tagger_learns_and_transformers_loads_it(tagged: Path, sentences: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    results = json.loads((tagged / "results.json").read_text())
    assert results["metric"] == "f1" and results["test"]["f1"] > 0.9
    assert set(results["details"]["test"]["types"]) == {"N", "P"}
    theirs, report = AutoModelForTokenClassification.from_pretrained(
        tagged / "model", output_loading_info=True
    )
    assert not any(report.values()) and theirs.config.id2label[1] == "B-N"
    predict.main([str(tagged), str(sentences), f"output={tmp_path / 'p.jsonl'}"])
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    written = [json.loads(line) for line in (tagged / "predictions" / "test.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in written]
    assert [row["1"] for row in rows] == [row["target"] for row in written]
    tokenizer = Tokenizer.load(tagged)
    row = rows[0]
    ids = torch.tensor([tokenizer.encode_batch([joined(row["0"])])[0]])
    best = theirs(ids).logits[0, 1:-1].argmax(-1).tolist()
    assert [theirs.config.id2label[one] for one in best] == row["prediction"]


def test_entities_of_texts(tagged: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from bert import cli

    text = "a b bad  good l c"
    found = bert.tag(tagged, text)
    assert [(e["label"], e["text"], e["start"], e["end"]) for e in found["entities"]] == [
        ("N", "bad", 4, 7),
        ("P", "good l", 9, 15),
    ]
    assert bert.tag(tagged, [text, "a"])[1]["entities"] == [] and bert.tag(tagged, []) == []
    assert cli.main(["tag", str(tagged), text]) == 0
    assert capsys.readouterr().out == "a b [bad N]  [good l P] c\n"
    assert cli.main(["tag", str(tagged), text, "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["entities"] == found["entities"]
    long = " ".join(["a b bad c d"] * 30)
    assert [e["start"] for e in bert.tag(tagged, long)["entities"]] == [12 * i + 4 for i in range(30)]
    (tmp_path / "words.jsonl").write_text('{"tokens": ["a", ",", "bad"]}\n')
    predict.main([str(tagged), str(tmp_path / "words.jsonl"), f"output={tmp_path / 'p.csv'}"])
    with (tmp_path / "p.csv").open() as table:
        cells = next(csv.DictReader(table))
    assert json.loads(cells["tokens"]) == ["a", ",", "bad"] and cells["prediction"] == "O,O,B-N"
    assert json.loads(cells["entities"])[0]["text"] == "bad"
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": 1, "text": text}) + "\n")
    predict.main([str(tagged), str(tmp_path / "t.jsonl")])
    row = json.loads(capsys.readouterr().out)
    assert row["id"] == 1 and [e["start"] for e in row["entities"]] == [4, 9]


def test_outputs_of_uneven_shards_are_those_of_one_process(tagged: Path, sentences: Path) -> None:
    model, tokenizer = bert.load(tagged), Tokenizer.load(tagged)
    data = KIND.encode(load_task(task(sentences)).train, tokenizer, BatchConfig(max_length=16))
    labels = model.labels  # type: ignore[attr-defined]
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor(row)[None].long()).logits[0] for row in data.ids])
        for processes in (1, 3):
            parts = [outputs_of(model, data, tokenizer.pad_id, 50, p, processes) for p in range(processes)]
            found = torch.stack(parts).sum(0)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
            measured = KIND.measure(data, found, labels)
            assert measured == pytest.approx(KIND.measure(data, alone, labels), rel=1e-5)


def test_models_of_another_kind_are_refused(tagged: Path, finished: Path) -> None:
    with pytest.raises(UserError, match="is a SequenceClassifier, not a classifier of tokens"):
        bert.tag(finished, "a")
    with pytest.raises(UserError, match="is a TokenClassifier, not a classifier of texts"):
        bert.classify(tagged, "a")


def test_texts_are_classified(finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from bert import cli

    (tmp_path / "t.txt").write_text("good a\nbad b c\n")
    predict.main([str(finished), str(tmp_path / "t.txt")])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = bert.classify(finished, ["good a", "bad b c"])
    for ours, row in zip(found, rows, strict=True):
        assert ours["prediction"] == row["prediction"]
        assert ours["probabilities"] == pytest.approx(row["probabilities"], abs=2e-6)
    assert bert.classify(finished, "good a") == found[0]
    assert cli.main(["classify", str(finished), "good a"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "good a" and shown[1].endswith("%  pos") and shown[2].endswith("%  neg")
    assert cli.main(["classify", str(finished), f"input={tmp_path / 't.txt'}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["prediction"] == "neg"


def test_parts_of_speech_have_accuracy(workshop: Any, tmp_path: Path) -> None:
    lines = "".join(f"{word}\t{tag}\n" for word, tag in [("a", "X"), ("b", "Y"), ("good", "Z")])
    (tmp_path / "pos.conll").write_text((lines + "\n") * 20)
    train(workshop.configured(tmp_path / "run", *words_for(tmp_path / "pos.conll")))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (
        results["validation"].keys() == {"loss", "accuracy", "macro_f1"} and results["metric"] == "accuracy"
    )
    assert results["validation"]["accuracy"] == 1
    found = bert.tag(tmp_path / "run", "good b")
    assert (found["words"], found["tags"]) == (["good", "b"], ["Z", "Y"])
