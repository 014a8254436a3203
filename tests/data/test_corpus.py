"""Every format gives the documents that were written, whole or in ranges; what is unusable is counted."""

import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bert.errors import UserError
from pretrain.corpus import sources as corpora
from pretrain.corpus.config import CorpusConfig, SourceConfig
from pretrain.corpus.sources import Unit, open_corpus, read_unit

TEXTS = [
    "The first text. It has two sentences.",
    "Zweiter Text: äöü ß.",
    "第三篇文章。",
    'Last one, with "quotes", and more.',
]


def documents(config: CorpusConfig) -> list[str]:
    found = open_corpus(config)
    outcomes = [
        outcome for unit in found.units for _, outcome in read_unit(unit, config.sentences == "lines")
    ]
    assert not [outcome for outcome in outcomes if isinstance(outcome, str)]
    return ["\n".join(outcome.paragraphs) for outcome in outcomes]


def write(path: Path, format: str) -> Path:
    """TEXTS in a format."""
    rows = [{"id": n, "text": text} for n, text in enumerate(TEXTS)]
    match format:
        case "lines":
            path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
        case "paragraphs":
            path.write_text("\n\n".join(TEXTS), encoding="utf-8")
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case "wiki":
            path.write_text(
                "".join(json.dumps({"title": "T", "paragraphs": [text]}) + "\n" for text in TEXTS)
            )
        case "csv" | "tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["id", "text"], delimiter="," if format == "csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        case "dataset":
            datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


@pytest.mark.parametrize(
    "name, format, named",
    [
        ("a.txt", "lines", "auto"),
        ("a.txt", "paragraphs", "auto"),
        ("a.data", "lines", "lines"),
        ("a.data", "paragraphs", "paragraphs"),
        ("a.jsonl", "jsonl", "auto"),
        ("a.json", "wiki", "auto"),
        ("a.jsonl", "wiki", "wiki"),
        ("a.csv", "csv", "auto"),
        ("a.tsv", "tsv", "auto"),
        ("a.parquet", "parquet", "auto"),
        ("saved", "dataset", "auto"),
        ("saved", "dataset", "dataset"),
    ],
)
def test_formats(name, format, named, tmp_path):
    path = write(tmp_path / name, format)
    assert documents(CorpusConfig([str(path)], named)) == TEXTS


@pytest.mark.parametrize(
    "suffix, compress",
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstandard.compress)],
)
def test_compressed_files(suffix, compress, tmp_path):
    path = tmp_path / f"a.jsonl{suffix}"
    lines = write(tmp_path / "plain", "jsonl").read_bytes().splitlines(keepends=True)
    path.write_bytes(
        compress(b"".join(lines[:2])) + compress(b"".join(lines[2:]))
    )  # two members, as cat makes
    assert documents(CorpusConfig([str(path)])) == TEXTS


def test_folders_globs_and_urls(tmp_path):
    for name in ("b/2.jsonl", "a/1.jsonl", "a/.hidden.jsonl", "a/notes.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "jsonl")
    assert documents(CorpusConfig([str(tmp_path)])) == TEXTS * 2
    assert documents(CorpusConfig([f"{tmp_path}/*/1.jsonl"])) == TEXTS
    assert (
        documents(CorpusConfig([f"{tmp_path}/**/*.jsonl", str(tmp_path / "a")])) == TEXTS * 2
    )  # each file once
    assert (
        documents(CorpusConfig([f"file://{tmp_path}/a/1.jsonl", f"file://{tmp_path}/b/*.jsonl"])) == TEXTS * 2
    )


def test_many_small_files_are_a_document_each(tmp_path):
    for n in range(32):
        (tmp_path / f"{n:02d}.txt").write_text(f"Document {n}.\n\nIts second paragraph.\n")
    found = documents(CorpusConfig([str(tmp_path)]))
    assert found == [f"Document {n}.\nIts second paragraph." for n in range(32)]


def test_a_mixture_keeps_its_sources_apart(tmp_path):
    one, other = write(tmp_path / "a.jsonl", "jsonl"), write(tmp_path / "b.txt", "lines")
    sources = [SourceConfig([str(one)], weight=2.0), SourceConfig([str(other)])]
    found = open_corpus(CorpusConfig(sources=sources))
    assert [(source.format, source.weight) for source in found.sources] == [("jsonl", 2.0), ("lines", 1.0)]
    assert [unit.source for unit in found.units] == [0, 1]


@given(
    texts=st.lists(st.text("ab \n\r.é。", max_size=30), max_size=12),
    format=st.sampled_from(["lines", "paragraphs"]),
    step=st.integers(1, 40),
)
def test_ranges_of_a_file_add_up_to_the_file(texts, format, step, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranges") / "a.txt"
    path.write_bytes("\n\n".join(texts).encode())
    size = path.stat().st_size

    def outcomes(start, stop):
        unit = Unit(0, format, "text", (str(path),), (start, stop), size)
        return [outcome for _, outcome in read_unit(unit, lines=True)]

    apart = [outcome for start in range(0, max(size, 1), step) for outcome in outcomes(start, start + step)]
    assert apart == outcomes(0, None)


def test_large_files_are_divided_where_the_format_allows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "_SMALLEST_SHARD", 60)
    monkeypatch.setattr(corpora, "_SHARDS", 1 << 40)
    for name, format, parts in [
        ("a.jsonl", "jsonl", 2),
        ("a.parquet", "parquet", 2),
        ("saved", "dataset", 1),
    ]:
        path = write(tmp_path / name, format)
        config = CorpusConfig([str(path)])
        assert len(open_corpus(config).units) > parts - 1
        assert documents(config) == TEXTS
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (unit,) = open_corpus(CorpusConfig([str(packed)])).units
    positions = [position for position, _ in read_unit(unit, lines=False)]
    assert positions == sorted(positions) and positions[-1] > 60
    odd = [
        position for position, _ in read_unit(unit, False, wanted=lambda position: position // 60 % 2 == 1)
    ]
    assert odd == [position for position in positions if position // 60 % 2 == 1]


def test_wrapped_lines_are_joined(tmp_path):
    prose = (
        "Call me Ishmael. Some years ago, never mind how long precisely, having\n"
        "little or no money in my purse, and nothing"
    )
    prose += " particular to interest\nme on shore, I thought I would sail about.\nIt is a way I have.\n"
    (tmp_path / "a.txt").write_text(prose)
    (found,) = documents(CorpusConfig([str(tmp_path / "a.txt")], "text"))
    assert found.splitlines()[0].endswith(
        "nothing particular to interest me on shore, I thought I would sail about."
    )
    assert documents(CorpusConfig([str(tmp_path / "a.txt")], "text", sentences="lines")) == [prose.strip()]


def test_long_documents_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("pretrain.corpus.readers.LONGEST_DOCUMENT", 1000)
    words = [f"word{n}" for n in range(1000)]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": " ".join(words)}))
    (tmp_path / "b.txt").write_text("\n".join(f"{'long line':>130} {word}" for word in words))
    (tmp_path / "c.txt").write_text(
        "\n".join([" ".join(words[:500]), *words[500:]])
    )  # its first line is several
    files = [("a.jsonl", "jsonl"), *(("b.txt", "text"), ("b.txt", "paragraphs"), ("c.txt", "text"))]
    for name, format in files:
        unit = open_corpus(CorpusConfig([str(tmp_path / name)], format)).units[0]
        parts = [outcome for _, outcome in read_unit(unit, lines=False)]
        assert len(parts) > 5 and all(sum(map(len, part.paragraphs)) <= 1200 for part in parts)
        assert parts[0].first_part is None and all(
            part.first_part == parts[0].paragraphs for part in parts[1:]
        )
        assert [
            word
            for word in " ".join(text for part in parts for text in part.paragraphs).split()
            if word[0] == "w"
        ] == words


@pytest.mark.parametrize(
    "name, content, outcomes",
    [
        ("a.jsonl", b'{"text": "good"}\n{"text": "\xff"}\n{broken\n[1]\n'
         b'{"other": 1}\n{"text": null}\n{"text": 3}\n{"text": " "}\n',
         ["not UTF-8", "not JSON", "not a JSON object", "no 'text'", "empty", "'text' is not text", "empty"]),
        ("a.csv", b"text,n\ngood,1\n\xff,2\n,3\n", ["not UTF-8", "empty"]),
        ("a.txt", b"good\n" + b"fine\n" * 300 + b"\xe9\n", ["not UTF-8"]),
        ("a.jsonl.gz", gzip.compress(b'{"text": "good"}\n' * 5000)[:-20], ["damaged or truncated file"]),
        ("a.jsonl.xz", lzma.compress(b'{"text": "good"}\n' * 5000)[:-20], ["damaged or truncated file"]),
        ("a.jsonl.zst", zstandard.compress(b'{"text": "good"}\n' * 5000)[:-5], ["damaged or truncated file"]),
    ],
)  # fmt: skip
def test_unusable_records_are_named(name, content, outcomes, tmp_path):
    (tmp_path / name).write_bytes(content)
    (unit,) = open_corpus(CorpusConfig([str(tmp_path / name)])).units
    found = [outcome for _, outcome in read_unit(unit, lines=False)]
    assert [outcome for outcome in found if isinstance(outcome, str)] == outcomes


def test_a_very_long_line_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("pretrain.corpus.readers.LONGEST_LINE", 1000)
    (tmp_path / "a.txt").write_text("before\n" + "x" * 5000 + "\nafter\n")
    (unit,) = open_corpus(CorpusConfig([str(tmp_path / "a.txt")], "lines")).units
    outcomes = [outcome for _, outcome in read_unit(unit, lines=False)]
    assert outcomes[1] == "line over 64 MiB" and [o.paragraphs for o in outcomes[::2]] == [
        ["before"],
        ["after"],
    ]


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "no such file"),
        ({"a.txt": b""}, "empty"),
        ({"a.bin": b"text"}, "corpus.format"),
        ({"a.txt": bytes(range(256)) * 20}, "not text"),
        ({"a.txt": "Naïve café déjà vu. ".encode("latin-1") * 20}, "iconv"),
        ({"a.txt": "plain".encode("utf-16")}, "UTF-16"),
        ({"a.jsonl": b'{"body": "x"}\n'}, "has no column 'text' but body"),
        ({"a.csv": b"title,body\n1,2\n"}, "has no column 'text' but title, body"),
        ({"a.json": b'[{"text": "x"}]'}, "one JSON list"),
        ({"a.jsonl": b"hello\n"}, "not JSON lines"),
        ({"a.parquet": b"not parquet at all"}, "not a parquet file"),
    ],
)
def test_mistakes_are_told_in_a_line(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        open_corpus(CorpusConfig([str(tmp_path / next(iter(files), "missing"))]))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_folder_without_text_is_refused(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="no file here that ends in"):
        open_corpus(CorpusConfig([str(tmp_path)]))


def test_a_mixture_and_files_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match=r"leave corpus\.files out"):
        CorpusConfig(["a.txt"], sources=[SourceConfig(["b.txt"])])
