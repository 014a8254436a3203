"""Hostile text: read, or skipped and counted by reason in the store's metadata; never a crash, never a silent loss."""

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from bert.config import from_dict
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.config import PretrainConfig
from pretrain.corpus.sources import open_corpus
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.plan import Plan
from pretrain.data.store import Store
from pretrain.prepare import ensure_store

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789😀🏳م رحبا.,!?;:-—“”é第一篇文章。"
LINES = [f"plain line {n} of many." for n in range(300)]
PLAIN = ("\n".join(LINES) + "\n").encode()
JSON = b"".join(b'{"text": "%s"}\n' % line.encode() for line in LINES)
CASES: dict[str, tuple[bytes, list[str], dict[str, int]]] = {
    # file → content, documents beside LINES, how many are skipped for which reason
    "zeros.txt": (PLAIN + b"zero\0 and\x01 bell\x07.\n", ["zero and bell."], {}),
    "broken.txt": (PLAIN + b"bad \xff\xfe.\ncut \xe7\xac\n", [], {"not UTF-8": 2}),
    "windows.txt": (b"\xef\xbb\xbffirst.\r\n" + PLAIN.replace(b"\n", b"\r\n"), ["first."], {}),
    "marks.txt": (PLAIN + b"... !!! ???\n;-;\n", ["... !!! ???", ";-;"], {}),
    "dots.txt": (PLAIN + b"." * 100_000 + b"\n", ["." * 100_000], {}),
    "emoji.txt": (PLAIN + "😀😀 🏳️‍🌈!\n".encode(), ["😀😀 [UNK]!"], {}),
    "rtl.txt": (PLAIN + "\u202eمرحبا. حار؟\u202c\n".encode(), ["مرحبا. حار[UNK]"], {}),
    "invisible.txt": (PLAIN + "\u200b\u200e\ufeff\n".encode(), [], {"no token": 1}),
    "blank.txt": (PLAIN + b" \t \n\n\x0c\n", [], {}),
    "empty.jsonl": (JSON + b'{"text": ""}\n{"text": " "}\n\n{"text": []}\n', [], {"empty": 3}),
    "other.jsonl": (JSON + b'{"t": 1}\n{"text": 1}\n[]\nno\n', [],
                    {"no 'text'": 1, "'text' is not text": 1, "not a JSON object": 1, "not JSON": 1}),
    "halves.jsonl": (JSON + b'{"text": "half \\ud800 a pair\\u0000."}\n', ["half a pair."], {}),
    "nested.jsonl": (JSON + b"[" * 100_000 + b"\n", [], {"not JSON": 1}),
    "cells.csv": (b"n,text\n" + b"".join(b'1,"%s"\n' % line.encode() for line in LINES) + b'1,"two\nlines"\n1\n',
                  ["two lines"], {"no 'text'": 1}),
    "whole.txt.gz": (gzip.compress(PLAIN), [], {}),
    "garbage.txt.xz": (lzma.compress(PLAIN) + b"\n garbage", [], {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("letters") / "vocab.txt"
    letters = [*dict.fromkeys(LETTERS.replace(" ", ""))]
    inside = [f"##{letter}" for letter in letters]
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *inside]) + "\n")
    return path


def prepared(file: Path, tokenizer: Path, **corpus: Any) -> Store:
    values = {"run_dir": str(file.parent / "run"), "corpus.files": [str(file)], "corpus.heldout_share": 0}
    values |= {"tokenizer.path": str(file.parent / "tokenizer"), "prepare.workers": 1} | corpus
    Tokenizer.load(tokenizer).save(file.parent / "tokenizer")
    return Store(ensure_store(from_dict(PretrainConfig, values)))


def contents(store: Store, tokenizer: Path) -> list[str]:
    decode = Tokenizer.load(tokenizer).decode
    return [decode(np.concatenate(store.document(number))) for number in range(store.num_documents)]


def spelled(text: str, tokenizer: Path) -> str:
    """A text as it comes out of its tokens."""
    loaded = Tokenizer.load(tokenizer)
    return loaded.decode(loaded.encode_batch([text], special_tokens=False)[0])


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost_in_silence(name: str, tmp_path: Path, tokenizer: Path) -> None:
    content, more, skipped = CASES[name]
    (tmp_path / name).write_bytes(content)
    store = prepared(tmp_path / name, tokenizer)
    counts = store.metadata["counts"]
    assert counts["skipped"] == skipped and counts["repeated"] == 0
    assert counts["documents"] == store.num_documents + sum(skipped.values())
    expected = [spelled(text, tokenizer) for text in LINES + more]
    assert sorted(contents(store, tokenizer)) == sorted(expected)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_a_torn_archive_gives_what_it_has(suffix: str, tmp_path: Path, tokenizer: Path) -> None:
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}[
        suffix
    ]
    rng, number = np.random.default_rng(0), 4_000 if suffix == "bz2" else 1_000  # its blocks are large
    lines = [" ".join(map(str, rng.integers(0, 10**9, 40))) for _ in range(number)]
    packed = compress("\n".join(lines).encode())
    file = tmp_path / f"a.txt.{suffix}"
    file.write_bytes(packed[: 2 * len(packed) // 3])
    store = prepared(file, tokenizer, **{"corpus.format": "lines"})
    assert store.metadata["counts"]["skipped"] == {"damaged or truncated file": 1}
    assert number / 8 < store.num_documents < number


def test_a_line_over_the_limit_is_counted(tmp_path: Path, tokenizer: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("pretrain.corpus.readers.LONGEST_LINE", 1 << 16)
    (tmp_path / "a.txt").write_bytes(PLAIN + b"x" * (1 << 20) + b"\n" + b"last.\n")
    store = prepared(tmp_path / "a.txt", tokenizer, **{"corpus.format": "lines"})
    assert store.metadata["counts"]["skipped"] == {"line over 64 MiB": 1} and store.num_documents == 301


@pytest.mark.parametrize("size", [5_000_000, pytest.param(50_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_single_line_of_many_megabytes(size: int, kind: str, tmp_path: Path, tokenizer: Path) -> None:
    """One document, one line, no mark in it: stored in parts that are known to be one, and cut into examples."""
    words = "".join(f"a{n % 97} " for n in range(size // 4))[:size].strip()
    file = tmp_path / f"a.{kind}"
    file.write_text(words if kind == "txt" else f'{{"text": "{words}"}}\n')
    store = prepared(file, tokenizer, **{"prepare.deduplicate": "off"})
    assert store.num_tokens == len(words.replace(" ", ""))
    assert store.parts.tolist() == [[0, -(-len(words) // (1 << 20))]] and store.num_wholes == 1
    plan = Plan(store, ObjectiveConfig(pairing="none"), 128, seed=0)
    examples = plan.take(0, plan.num_examples(0))
    assert examples.a_length.sum() == store.num_tokens and examples.lengths.max() == 128


def test_broken_encodings_are_repaired_on_request(tmp_path: Path, tokenizer: Path) -> None:
    pytest.importorskip("ftfy")
    (tmp_path / "a.txt").write_text("caf\u00c3\u00a9 \u00e2\u20ac\u201d so.\n", encoding="utf-8")
    for ftfy, normalize in [(True, True), (True, False)]:
        options = {
            "corpus.ftfy": ftfy,
            "corpus.normalize": normalize,
            "prepare.store": str(tmp_path / f"{normalize}"),
        }
        options["tokenizer.lowercase"] = False
        (text,) = contents(prepared(tmp_path / "a.txt", tokenizer, **options), tokenizer)
        assert text == spelled("café — so.", tokenizer)
    as_it_is = prepared(tmp_path / "a.txt", tokenizer, **{"prepare.store": str(tmp_path / "raw")})
    assert contents(as_it_is, tokenizer) != [text]


def test_what_is_no_text_is_refused_before_the_start(tmp_path: Path) -> None:
    from bert.errors import UserError
    from pretrain.corpus.config import CorpusConfig

    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 300)
    with pytest.raises(UserError, match="is not text"):
        open_corpus(CorpusConfig([str(tmp_path / "a.txt")]))


@pytest.mark.parametrize("name", ["torn.txt.bz2", "other.txt.bz2"])
def test_a_damaged_bz2_is_counted(tmp_path: Path, tokenizer: Path, name: str) -> None:
    whole = bz2.compress(PLAIN)
    (tmp_path / "plain.txt").write_bytes(PLAIN)
    (tmp_path / name).write_bytes(whole[:-20] if name.startswith("torn") else PLAIN)
    store = prepared(tmp_path / "*.txt*", tokenizer, **{"corpus.format": "lines"})
    assert store.num_documents == len(LINES)
    assert store.metadata["counts"]["skipped"] == {"damaged or truncated file": 1}


def test_a_table_without_line_feeds_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "old.csv").write_bytes(b"n,text\r1,a line.\r2,another.\r")
    with pytest.raises(UserError, match="its first line cannot be read as the columns' names"):
        prepared(tmp_path / "old.csv", tokenizer)


def test_more_sources_than_a_store_can_number_are_refused() -> None:
    sources = [{"files": ["a.txt"]}] * 257
    with pytest.raises(UserError, match="257 are more than 256"):
        from_dict(PretrainConfig, {"corpus.sources": sources})
