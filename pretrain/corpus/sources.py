"""Sources of a corpus: which files it has, how each is read, and how they are divided into units of work.

Sources → files → units → records → documents. A unit is what one worker reads at a time: several small files, a range
of a large one, or a large one that can only be read from its start. Each `shard_bytes` bytes of a unit become a shard.
Units and shards depend on the files alone, never on the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bert.errors import UserError
from pretrain.corpus import documentation, files, tables
from pretrain.corpus.config import DOCUMENTATION, CorpusConfig, SourceConfig
from pretrain.corpus.files import File
from pretrain.corpus.readers import (
    Document,
    Reader,
    UnusableError,
    documents,
    line_records,
    paragraph_records,
    parse_json,
    parse_line,
    parse_row,
    text_records,
)

READERS = {
    "text": Reader(text_records),
    "paragraphs": Reader(paragraph_records, ranges="bytes"),
    "lines": Reader(line_records, parse_line, "bytes"),
    "jsonl": Reader(line_records, parse_json, "bytes"),
    "wiki": Reader(line_records, lambda line, _: parse_json(line, "paragraphs"), "bytes"),
    "csv": Reader(tables.delimited(","), parse_row),
    "tsv": Reader(tables.delimited("\t"), parse_row),
    "parquet": Reader(tables.parquet_records, parse_row, "groups"),
    "dataset": Reader(tables.dataset_records, parse_row, "rows"),
    "documentation": Reader(documentation.records, lambda module, _: module.paragraphs),
}
_FORMATS = {
    **dict.fromkeys((".txt", ".text", ".md", ".rst"), "plain"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_SMALLEST_SHARD, _LARGEST_SHARD, _SHARDS = 1 << 21, 1 << 26, 256
_LOOKED_AT = 100


@dataclass(frozen=True)
class Source:
    """Files of one format."""

    name: str
    format: str
    column: str
    weight: float
    files: list[File]


@dataclass(frozen=True)
class Unit:
    """Some files, or a range of one, for a worker to read; `size` is about how many bytes of text it has."""

    source: int
    format: str
    column: str
    files: tuple[str, ...]
    within: tuple[int, int | None]
    size: int


@dataclass(frozen=True)
class Corpus:
    sources: list[Source]
    units: list[Unit]
    shard_bytes: int

    @property
    def size(self) -> int:
        """About how many bytes of text there are."""
        return sum(unit.size for unit in self.units)


def open_corpus(config: CorpusConfig) -> Corpus:
    """Find the files and their formats; UserError for a file that is missing, empty or of another format."""
    given = config.sources or [SourceConfig(config.files, config.format, config.text_column)]
    sources = [_open_source(source) for source in given]
    total = sum(file.unpacked_size for source in sources for file in source.files)
    shard_bytes = _SMALLEST_SHARD
    while shard_bytes < min(total / _SHARDS, _LARGEST_SHARD):
        shard_bytes *= 2
    units = [unit for number, source in enumerate(sources) for unit in _units(number, source, shard_bytes)]
    return Corpus(sources, units, shard_bytes)


def read_unit(
    unit: Unit, lines: bool, wanted: Callable[[int], bool] = lambda position: True
) -> Iterator[tuple[int, Document | str]]:
    """The documents of a unit with their positions in it; in place of an unusable one, the reason.

    `lines`: every line is a sentence. Records at positions that are not `wanted` are not parsed.
    """
    reader = READERS[unit.format]
    skipped = unit.within[0] if reader.ranges == "bytes" else 0
    begin = -1
    for path in unit.files:
        base = begin + 1
        try:
            for at, record in reader.records(path, unit.within, unit.column):
                begin = base + at - skipped
                if wanted(begin):
                    for outcome in _parse(reader, record, unit.column, lines):
                        yield begin, outcome
        except files.DAMAGE:
            if wanted(max(begin, 0)):
                yield max(begin, 0), "damaged or truncated file"


def _parse(reader: Reader, record: object, column: str, lines: bool) -> Iterator[Document | str]:
    try:
        yield from documents(reader, record, column, lines)
    except UnusableError as error:
        yield str(error)


def _open_source(config: SourceConfig) -> Source:
    name = ", ".join(config.files)
    if config.files == [DOCUMENTATION] and config.format in ("auto", "documentation"):
        packages = [File(package, size) for package, size in documentation.sizes().items()]
        return Source(DOCUMENTATION, "documentation", "", config.weight, packages)
    if config.format == "dataset" or all(_is_saved_dataset(name) for name in config.files):
        found = [File(name, sum(tables.dataset_sizes(name))) for name in config.files]
        return Source(name, "dataset", config.text_column, config.weight, found)
    suffixes = tuple(suffix for suffix, kind in _FORMATS.items() if config.format in ("auto", kind))
    matched = [file for pattern in config.files for file in files.find(pattern, suffixes)]
    found = list({file.path: file for file in matched}.values())
    if not any(file.size for file in found):
        raise UserError(
            f"{name}: {'the file is' if len(found) == 1 else 'all files are'} empty; give files with text"
        )
    source = Source(name, _format_of(config, found), config.text_column, config.weight, found)
    _check(source)
    return source


def _is_saved_dataset(name: str) -> bool:
    return any((Path(name) / about).is_file() for about in ("dataset_dict.json", "dataset_info.json"))


def _format_of(config: SourceConfig, found: Sequence[File]) -> str:
    """The format: as configured, or by the names of the files, or by their first bytes."""
    if config.format != "auto":
        return config.format
    kinds = {file.suffix: _FORMATS.get(file.suffix) for file in found}
    for file in found:
        if kinds[file.suffix] is None:
            known = "|".join(sorted(READERS))
            raise UserError(
                f"{file.path}: its name does not show the format; set corpus.format to one of {known}"
            )
    if len(set(kinds.values())) > 1:
        raise UserError(
            f"{', '.join(config.files)}: files of several formats; name each kind in corpus.sources"
        )
    kind = kinds[found[0].suffix]
    if kind == "plain":
        return _plain_format(found)
    if kind == "jsonl" and "paragraphs" in tables.json_keys(found[0].path) and config.text_column == "text":
        return "wiki"
    return str(kind)


def _plain_format(found: Sequence[File]) -> str:
    """Many small files are a document each. Others hold many: between blank lines, or else one on each line."""
    if len(found) >= 32 and sum(file.unpacked_size for file in found) < len(found) << 20:
        return "text"
    start = files.first_bytes(next(file for file in found if file.size))
    return "paragraphs" if b"\n\n" in start.replace(b"\r", b"").strip() else "lines"


def _check(source: Source) -> None:
    """Refuse files that are not UTF-8 text or lack the column, before hours are spent on them."""
    nonempty = [file for file in source.files if file.size]
    if source.format != "parquet":
        for file in nonempty if len(nonempty) <= _LOOKED_AT else nonempty[:1]:
            files.look(file)
    if source.format in ("csv", "tsv", "parquet", "jsonl", "wiki"):
        column = "paragraphs" if source.format == "wiki" else source.column
        found = tables.columns(nonempty[0].path, source.format)
        if found and column not in found:
            raise UserError(
                f"{nonempty[0].path}: has no column {column!r} but {', '.join(found)}; set corpus.text_column, or "
                "the text_column of its source in corpus.sources"
            )


def _units(number: int, source: Source, most: int) -> Iterator[Unit]:
    """Units of at most `most` bytes: several small files, or a range of a large one where its format allows it."""

    def unit(paths: Sequence[str], within: tuple[int, int | None], size: int) -> Unit:
        return Unit(number, source.format, source.column, tuple(paths), within, size)

    waiting: list[str] = []
    waiting_size = 0
    for file in source.files:
        size = file.unpacked_size
        if waiting and waiting_size + size > most:
            yield unit(waiting, (0, None), waiting_size)
            waiting, waiting_size = [], 0
        if size > most:
            yield from (unit([file.path], within, part) for within, part in _ranges(source, file, most))
        else:
            waiting.append(file.path)
            waiting_size += size
    if waiting:
        yield unit(waiting, (0, None), waiting_size)


def _ranges(source: Source, file: File, most: int) -> Iterator[tuple[tuple[int, int | None], int]]:
    ranges = READERS[source.format].ranges
    if ranges == "bytes" and not file.compressed:
        for start in range(0, file.size, most):
            stop = min(start + most, file.size)
            yield (start, stop), stop - start
    elif ranges == "groups":
        yield from _runs(tables.row_groups(file.path), most)
    elif ranges == "rows":
        yield from _runs(tables.dataset_sizes(file.path), most)
    else:
        yield (0, None), file.unpacked_size


def _runs(sizes: Sequence[int], most: int) -> Iterator[tuple[tuple[int, int], int]]:
    """Neighbours together, up to `most` bytes."""
    start, total = 0, 0
    for number, size in enumerate(sizes):
        if number > start and total + size > most:
            yield (start, number), total
            start, total = number, 0
        total += size
    if sizes:
        yield (start, len(sizes)), total
