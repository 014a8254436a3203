"""Tables → rows: comma- and tab-separated text, parquet, and the datasets of Hugging Face."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bert.errors import UserError
from pretrain.corpus import files
from pretrain.corpus.readers import LONGEST_LINE, Range, Records, read_lines


def delimited(delimiter: str) -> Callable[[str, Range, str], Records]:
    """The reader of a table whose cells stand between commas or tabs; quoted cells may hold line ends."""

    def records(path: str, within: Range, column: str) -> Records:
        csv.field_size_limit(LONGEST_LINE)
        with files.open_text(path) as content:
            read = 0

            def decoded() -> Iterator[str]:
                nonlocal read
                for _, line in read_lines(content):
                    if line is not None:
                        read += len(line)
                        yield line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")

            rows = csv.reader(decoded(), delimiter=delimiter)
            header: list[str] | None = None
            while True:
                begin = read
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    raise EOFError(f"damaged table: {error}") from None
                if row is None:
                    return
                if header is None:
                    header = row
                    continue
                if row:
                    yield begin, dict(zip(header, row, strict=False))

    return records


def parquet_records(path: str, within: Range, column: str) -> Records:
    """The rows of some row groups, the text's column alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    position = 0
    with files.open_raw(path) as raw:
        try:
            file = pq.ParquetFile(raw)
            groups = list(range(file.num_row_groups)[slice(*within)])
            for batch in file.iter_batches(batch_size=256, row_groups=groups, columns=[column]):
                for row in batch.to_pylist():
                    yield position, row
                    position += len(str(row.get(column)))
        except (pa.ArrowInvalid, OSError) as error:
            raise EOFError(str(error)) from None


def row_groups(path: str) -> list[int]:
    """The bytes that each row group of a parquet file takes unpacked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.open_raw(path) as raw:
        try:
            about = pq.ParquetFile(raw).metadata
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: is not a parquet file ({' '.join(str(error).split())})") from None
    return [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]


def open_dataset(name: str) -> Any:
    """A dataset saved by `datasets` in a folder, or NAME[:CONFIG[:SPLIT]] on the hub, streamed from there."""
    import datasets

    try:
        if Path(name).is_dir():
            saved = datasets.load_from_disk(name)
            return saved["train"] if isinstance(saved, datasets.DatasetDict) else saved
        path, config, split = [*name.split(":"), "", ""][:3]
        return datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{name}: no such dataset ({type(error).__name__}); give a folder that save_to_disk made, or a hub name as "
            "NAME:CONFIG:SPLIT"
        ) from None


def dataset_records(path: str, within: Range, column: str) -> Records:
    """The rows of a saved dataset in a range, or the shards of a streamed one."""
    found = open_dataset(path)
    start, stop = within
    position = 0
    if hasattr(found, "select"):
        parts: Iterable[Any] = [found.select(range(start, len(found) if stop is None else stop))]
    else:
        parts = (found.shard(found.num_shards, shard) for shard in range(found.num_shards)[start:stop])
    for part in parts:
        for row in part.select_columns([column]):
            yield position, row
            position += len(str(row[column]))


def dataset_size(name: str) -> int:
    """About how many bytes of text a dataset has: a million a shard for one that is streamed."""
    return sum(dataset_parts(name))


def dataset_parts(name: str) -> list[int]:
    """The bytes of each row of a saved dataset, or of each shard of a streamed one, about."""
    found = open_dataset(name)
    if hasattr(found, "select"):
        return [max(1, (found.data.nbytes or 0) // max(1, len(found)))] * len(found)
    return [1 << 20] * found.num_shards


def columns(path: str, format: str) -> list[str]:
    """The names of a table's columns, or of the keys of its first JSON line; none if there is no telling."""
    if format == "parquet":
        row_groups(path)
        import pyarrow.parquet as pq

        with files.open_raw(path) as raw:
            return list(pq.ParquetFile(raw).schema_arrow.names)
    if format in ("csv", "tsv"):
        with files.open_text(path) as content:
            header = content.readline(LONGEST_LINE).decode("utf-8-sig", "replace")
        try:
            return next(csv.reader([header], delimiter="," if format == "csv" else "\t"), [])
        except csv.Error as error:
            raise UserError(
                f"{path}: its first line cannot be read as the columns' names ({error})"
            ) from None
    return json_keys(path)


def json_keys(path: str) -> list[str]:
    """The keys of the first line of a file of JSON lines."""
    line = row = None
    with files.open_text(path) as content:
        try:
            line = next((line for _, line in read_lines(content) if line is None or line.strip()), None)
            row = json.loads(line or b"")
        except (ValueError, RecursionError, *files.DAMAGE):
            pass
    if not isinstance(row, dict) and line:
        hint = "the file is one JSON list: write each of its members on a line of its own"
        what = hint if line.lstrip().startswith(b"[") else "its first line is no JSON object"
        raise UserError(f"{path}: is not JSON lines; {what}")
    return list(row or {})
