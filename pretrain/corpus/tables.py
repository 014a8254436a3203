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
    """The reader of comma- or tab-separated tables; quoted cells may hold line ends."""

    def records(path: str, within: Range, column: str) -> Records:
        csv.field_size_limit(LONGEST_LINE)
        with files.open_text(path) as content:
            position = 0

            def decoded() -> Iterator[str]:
                nonlocal position
                for _, line in read_lines(content):
                    if line is not None:
                        position += len(line)
                        yield line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")

            rows = csv.reader(decoded(), delimiter=delimiter)
            header: list[str] | None = None
            while True:
                begin = position
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
    """The rows of some row groups, with the text column only."""
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
    """The uncompressed bytes of each row group of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.open_raw(path) as raw:
        try:
            about = pq.ParquetFile(raw).metadata
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: is not a parquet file ({' '.join(str(error).split())})") from None
    return [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]


def open_dataset(name: str) -> Any:
    """A dataset that `datasets` saved in a folder, or NAME[:CONFIG[:SPLIT]] on the hub, which is streamed."""
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
    """The rows of a range: of rows of a saved dataset, of shards of a streamed one."""
    found = open_dataset(path)
    start, stop = within
    position = 0
    if hasattr(found, "select"):
        ranges: Iterable[Any] = [found.select(range(start, len(found) if stop is None else stop))]
    else:
        ranges = (found.shard(found.num_shards, shard) for shard in range(found.num_shards)[start:stop])
    for one in ranges:
        for row in one.select_columns([column]):
            yield position, row
            position += len(str(row[column]))


def dataset_sizes(name: str) -> list[int]:
    """About how many bytes each row of a saved dataset has, or each shard of a streamed one: there a million."""
    found = open_dataset(name)
    if hasattr(found, "select"):
        return [max(1, (found.data.nbytes or 0) // max(1, len(found)))] * len(found)
    return [1 << 20] * found.num_shards


def columns(path: str, format: str) -> list[str]:
    """The column names of a table, or the keys of the first JSON line; none if they cannot be read."""
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
