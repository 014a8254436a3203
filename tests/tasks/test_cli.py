"""The `bert` command: files in, rows out, and a line of explanation for every mistake."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import bert
from bert.cli import COMMANDS, main
from bert.errors import run_command
from bert.tokenizer import Tokenizer

TEXTS = ["the cat sat on a mat.", "was a dog bad?", "paris", "é"]


@pytest.fixture
def run(capsys, folders):
    """Run a command on a checkpoint; its exit code, what it prints, and its errors."""

    def run(command, *words, model="bert"):
        code = main([command, str(folders[model]), *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(params=["txt", "jsonl", "csv", "tsv", "parquet"])
def texts_file(request, tmp_path):
    """The same texts in a file of each format, with the columns that come with them."""
    path = tmp_path / f"texts.{request.param}"
    columns = [{"id": f"№ {i}", "text": text} for i, text in enumerate(TEXTS)]
    if request.param == "txt":
        columns = [{"text": text} for text in TEXTS]
    if request.param == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(columns), path)
        return path, columns
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        if request.param == "txt":
            file.write("\r\n".join(TEXTS))
        elif request.param == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in columns)
        else:
            table = csv.DictWriter(file, ["id", "text"], delimiter="\t" if request.param == "tsv" else ",")
            table.writeheader()
            table.writerows(columns)
    return path, columns


def test_rows_keep_their_columns_and_gain_the_answer(run, texts_file, folders):
    path, columns = texts_file
    code, printed, _ = run("score", f"input={path}")
    assert code == 0
    found = rows(printed)
    assert [{k: row[k] for k in columns[0]} for row in found] == columns
    expected = bert.score(folders["bert"], TEXTS)
    np.testing.assert_allclose([row["score"] for row in found], expected, atol=1e-5)
    assert [row["num_tokens"] for row in found] == [
        len(ids) - 2 for ids in Tokenizer.load(folders["bert"]).encode_batch(TEXTS)
    ]


def test_score_takes_a_scorer(run, folders):
    code, printed, _ = run("score", "was a dog unaffable?", "scorer=within_word_l2r")
    expected = bert.score(folders["bert"], "was a dog unaffable?", scorer="within_word_l2r")
    assert code == 0 and float(printed.split()[0]) == pytest.approx(expected, abs=1e-3)
    code, _, errors = run("score", "a", "scorer=best")
    assert code == 2 and "scorer" in errors and "within_word_l2r" in errors


def test_lines_are_read_by_a_pattern(run, folders, tmp_path):
    (tmp_path / "labelled.txt").write_text("NUM the cat\nLOC paris\n")
    pattern = "(?P<label>[A-Z]+) (?P<sentence>.+)"
    code, printed, _ = run(
        "score", f"input={tmp_path / 'labelled.txt'}", f"pattern={pattern}", "column=sentence"
    )
    assert code == 0
    found = [{k: row[k] for k in ("label", "sentence")} for row in rows(printed)]
    assert found == [{"label": "NUM", "sentence": "the cat"}, {"label": "LOC", "sentence": "paris"}]


@pytest.mark.parametrize("suffix", ["jsonl", "npy"])
def test_embed_writes_rows_or_a_matrix(run, texts_file, folders, tmp_path, suffix):
    output = tmp_path / f"vectors.{suffix}"
    code, printed, _ = run(
        "embed", f"input={texts_file[0]}", f"output={output}", "pooling=cls", "normalise=true"
    )
    assert (code, printed) == (0, "")
    if suffix == "npy":
        vectors = np.load(output)
    else:
        vectors = np.array([row["embedding"] for row in rows(output.read_text())])
    expected = bert.embed(folders["bert"], TEXTS, "cls", normalise=True)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([texts_file[0].name, output.name])


def test_a_matrix_of_many_chunks_has_a_valid_header(run, folders, tmp_path, monkeypatch):
    texts = [f"{'cat ' * (i % 7)}{i}" for i in range(230)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    monkeypatch.setattr("bert.cli.CHUNKS", {"embed": 64})
    assert run("embed", f"input={tmp_path / 'texts.txt'}", f"output={tmp_path / 'v.npy'}")[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), bert.embed(folders["bert"], texts), atol=2e-6)


def test_an_empty_file_gives_an_empty_matrix(run, tmp_path):
    (tmp_path / "texts.txt").touch()
    assert run("embed", f"input={tmp_path / 'texts.txt'}", f"output={tmp_path / 'v.npy'}")[0] == 0
    assert np.load(tmp_path / "v.npy").shape == (0, 0)


def test_long_texts_are_cut_and_counted_once(run, tmp_path, caplog):
    (tmp_path / "texts.txt").write_text("\n".join(["cat " * 70, "a", "dog " * 90]))
    assert run("embed", f"input={tmp_path / 'texts.txt'}", f"output={tmp_path / 'v.npy'}")[0] == 0
    assert [record.message[:12] for record in caplog.records] == ["2 of 3 texts"]


def test_masks_of_words_are_filled_for_the_eye(run, folders):
    code, printed, _ = run("fill-mask", "the [MASK] sat.", "[MASK] or [MASK]", "top_k=2")
    best = bert.fill_mask(folders["bert"], "the [MASK] sat.", top_k=2)
    lines = printed.splitlines()
    assert code == 0
    assert lines[0] == "the [MASK] sat."
    assert [line.split(" %  ")[1] for line in lines[1:3]] == [each["token_str"] for each in best]
    assert float(lines[1].split(" %")[0]) == pytest.approx(100 * best[0]["score"], abs=0.01)
    assert lines[3:5] == ["[MASK] or [MASK]", " mask 1"]


def test_masks_of_a_file_are_filled_for_programs(run, folders, tmp_path):
    texts = ["a [MASK]", "[MASK] or [MASK]"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    output = tmp_path / "out.jsonl"
    run("fill-mask", f"input={tmp_path / 'texts.txt'}", f"output={output}", "top_k=1")
    found = rows(output.read_text())
    assert [row["text"] for row in found] == texts
    expected = [[bert.fill_mask(folders["bert"], texts[0], 1)], bert.fill_mask(folders["bert"], texts[1], 1)]
    for row, masks in zip(found, expected, strict=True):
        for [prediction], [best] in zip(row["predictions"], masks, strict=True):
            assert prediction.pop("score") == pytest.approx(best.pop("score"))
            assert prediction == best


def test_attention_maps_of_words(run, folders):
    [row] = rows(run("attention-maps", "the cat")[1])
    tokens, maps = bert.attention_maps(folders["bert"], "the cat")
    assert row["tokens"] == tokens
    np.testing.assert_allclose(row["attentions"], maps, atol=1e-6)


def test_a_word_with_a_space_or_without_a_key_is_a_text(run):
    code, printed, _ = run("score", "1 + 1=2", "=", "x == y")
    assert code == 0
    assert [line.split("  ")[-1] for line in printed.splitlines()] == ["1 + 1=2", "=", "x == y"]


def test_a_checkpoint_verifies_itself(run):
    code, printed, _ = run("verify")
    assert code == 0
    assert "passed" in printed and "transformers and ours" in printed
    with pytest.raises(SystemExit) as left:
        run("verify", "tolerance=0")
    assert left.value.code == 1


def test_help_and_overview(capsys):
    assert main([]) == main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in COMMANDS:
        assert f"bert {name}" in overview
        assert main([name, "--help"]) == 0
        assert re.match(f"usage: bert {name} (CHECKPOINT|RUN)", capsys.readouterr().out)


MISTAKES = {
    "command": (["fill_mask"], "no command 'fill_mask'; the commands are fill-mask"),
    "no checkpoint": (["score"], "a checkpoint is missing; usage: bert score"),
    "no texts": (["score", "{bert}"], "either as words or by input=FILE"),
    "both": (["score", "{bert}", "a", "input=x.txt"], "not both"),
    "no folder": (["score", "nowhere", "a"], "nowhere: no such folder"),
    "no file": (["score", "{bert}", "input=nothing.txt"], "nothing.txt: no such file"),
    "folder": (["score", "{bert}", "input={tmp}"], "is a folder"),
    "format": (["score", "{bert}", "input={tmp}/a.pdf"], "a.pdf: its name does not show the format; give format=csv"),
    "key": (["score", "{bert}", "a", "batch_token=3"], "batch_token: unknown key"),
    "value": (["fill-mask", "{bert}", "a", "top_k=0"], "top_k: 0 is not allowed"),
    "dashes": (["fill-mask", "{bert}", "--top-k", "3"], "--top-k: options are written top_k=VALUE"),
    "device": (["score", "{bert}", "a", "device=toaster"], "device: toaster cannot be used"),
    "output": (["score", "{bert}", "a", "output=x.npy"], "does not end in .jsonl"),
    "output folder": (["score", "{bert}", "a", "output={tmp}/no/x.jsonl"], "there is no folder"),
    "column": (["score", "{bert}", "input={tmp}/a.csv", "column=b"], "line 2: 'b' is not there, only text"),
    "not text": (["score", "{bert}", "input={tmp}/a.jsonl"], "a.jsonl, line 1: 'text' is not a text"),
    "not json": (["score", "{bert}", "input={tmp}/b.jsonl"], "b.jsonl, line 2: is not JSON"),
    "half": (["score", "{bert}", "input={tmp}/c.jsonl"], "c.jsonl, line 1: has half a surrogate pair in"),
    "not utf-8": (["score", "{bert}", "input={tmp}/a.txt"], "a.txt, line 2: is not text in UTF-8"),
    "no mask": (["fill-mask", "{bert}", "input={tmp}/b.txt", "output={tmp}/o.jsonl"], "line 2: has no"),
    "no mask in words": (["fill-mask", "{bert}", "[MASK]", "paris"], r"'paris': has no \[MASK\]"),
    "too long": (["score", "{bert}", "a", "cat " * 63], "has 65 tokens and the model reads 64"),
    "no head": (["score", "{bare}", "a"], "bare: holds a bare encoder, which predicts no tokens"),
    "classifier": (["fill-mask", "{classifier}", "[MASK]"], "classifier: holds a classifier of texts, which"),
    "quote": (["score", "{bert}", "input={tmp}/b.csv"], "b.csv, line 2: unexpected end of data; look for"),
    "own column": (["score", "{bert}", "input={tmp}/d.csv", "output={tmp}/o.jsonl"], "line 2: has a column 'score'"),
    "cells": (["score", "{bert}", "input={tmp}/e.csv"], "e.csv, line 3: has 3 cells for 2 columns"),
    "pattern": (["score", "{bert}", "input={tmp}/a.txt", "pattern=x"], "pattern: has no named group"),
    "words": (["verify", "{bert}", "a"], "'a' is one argument too many"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_take_one_line(folders, tmp_path, capsys, case):
    contents = {
        "a.pdf": b"%PDF",
        "a.csv": b"text\nx\n",
        "b.csv": b'text\n"never closed\nmore\n',
        "a.jsonl": b'{"text": 3}\n',
        "b.jsonl": b'{"text": "a"}\ntext\n',
        "c.jsonl": b'{"text": "\\ud83d"}\n',
        "a.txt": b"fine\n\xff\xfe\n",
        "d.csv": b"text,score\nx,1\n",
        "e.csv": b"text,id\nx,1\nx, y,2\n",
        "b.txt": b"a [MASK]\nnone\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    words, message = MISTAKES[case]
    names = {**folders, "tmp": tmp_path}
    assert main([word.format(**names) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert re.search(message, printed.err)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(contents)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["embed", "fill-mask"])
def test_memory_does_not_grow_with_the_file(folders, tmp_path, command):
    """Six times as many texts (50 MB of answers, were they kept) take no more than a few MB more."""
    code = (
        "import sys; from bert.cli import main; from bert.training.tracking import peak_memory;"
        "main(sys.argv[1:]); print(peak_memory() // 2**20)"
    )
    megabytes = []
    for thousands in (10, 60):
        (tmp_path / "texts.txt").write_text("the big cat [MASK]\na dog [MASK]\n" * (500 * thousands))
        files = [f"input={tmp_path / 'texts.txt'}", f"output={tmp_path / 'out.jsonl'}"]
        words = [sys.executable, "-c", code, command, str(folders["bert"]), *files]
        done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=True)
        megabytes.append(int(done.stdout))
    assert megabytes[1] < megabytes[0] + 25


@pytest.mark.launch
@pytest.mark.parametrize(
    "command",
    [
        "-m bert.cli attention-maps {bert} " + 100 * "the cat ",
        "-m bert.cli embed --help",
        "-m pretrain --help",
        "-m finetune --help",
    ],
)
def test_a_reader_that_stops_early_is_no_error(folders, command):
    """The pipe is closed before anything is written, so that what is small breaks it as well."""
    line = f"{sys.executable} {command.format(**folders)} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.launch
@pytest.mark.parametrize(
    "command", ["-m bert.cli --help", "-m bert.cli --version", "-m pretrain --help", "-m finetune --list"]
)
def test_output_that_cannot_be_written_is_one_line(command):
    line = f"{sys.executable} {command} > /dev/full; echo $?"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    said = "error: the output cannot be written (No space left on device)\n"
    assert (done.stdout, done.stderr) == ("1\n", said)


def test_ctrl_c_is_one_line(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert run_command(main, []) == 130
    assert capsys.readouterr().err == "interrupted; the same command continues, or begins again\n"


def test_another_error_of_the_system_is_not_taken_for_one_of_the_output():
    def main(argv):
        raise OSError(28, "No space left on device", "elsewhere")

    with pytest.raises(OSError, match="elsewhere"):
        run_command(main, [])


def test_the_version_is_one_line(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(
        r"bert-pretraining \S+ with torch \d\S*, .*; Python 3\.\S+\n", capsys.readouterr().out
    )


def test_a_pipe_that_breaks_elsewhere_is_an_error():
    def main(argv):
        raise BrokenPipeError("of a worker process")

    with pytest.raises(BrokenPipeError):
        run_command(main, [])
