"""The formats of files of rows: a reader for each, file → rows. Their table is `READERS` in bert/data/records.py."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain

from bert.data.records import Row, RowFile
from bert.errors import UserError


def read_csv(file: RowFile) -> Iterator[Row]:
    return _read_cells(file, file.config.delimiter or ",", quoted=file.config.quotes is not False)


def read_tsv(file: RowFile) -> Iterator[Row]:
    return _read_cells(file, file.config.delimiter or "\t", quoted=file.config.quotes is True)


def _read_cells(file: RowFile, delimiter: str, quoted: bool) -> Iterator[Row]:
    """The names of columns come from the configuration or from the first line."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        file.lines(newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    columns, line = file.config.columns, 1
    try:
        for cells in reader:
            if not cells:
                pass  # an empty line
            elif columns is None:
                columns = _header(file, cells)
            elif len(cells) != len(columns):
                problem = f"has {len(cells)} cells for {len(columns)} columns ({', '.join(columns)})"
                yield Row(file.place(line), dict(zip(columns, cells, strict=False)), problem)
            else:
                yield Row(file.place(line), dict(zip(columns, cells, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "; look for a quote too many, or let quotes=false take quotes as plain characters"
        raise UserError(f"{file.place(line)}: {error}{hint if quoted else ''}") from None


def _header(file: RowFile, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"{file.place(1)}: two columns are called {twice!r}; without a header line, give columns=[…]"
        )
    return names


def read_jsonl(file: RowFile) -> Iterator[Row]:
    for number, line in enumerate(file.lines(newline=""), 1):
        place = file.place(number)
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            yield Row(place, {}, f"is not JSON ({error.msg}, column {error.colno})")
            continue
        except (ValueError, RecursionError) as error:  # thousands of digits or of brackets
            yield Row(place, {}, f"cannot be read as JSON ({error})")
            continue
        if isinstance(values, dict):
            yield Row(place, values)
        else:
            yield Row(place, {}, "is not a JSON object: one {…} a line is expected")


def read_parquet(file: RowFile) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    done = 0
    try:
        table = pyarrow.parquet.ParquetFile(file.path)
        file.bytes_read = lambda: file.size * done // max(table.metadata.num_rows, 1)
        for batch in table.iter_batches():
            for number, values in enumerate(batch.to_pylist(), done + 1):
                yield Row(f"{file.path}, row {number}", values)
            done += len(batch)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file.path}: cannot be read as parquet ({error})") from None


def read_lines(file: RowFile) -> Iterator[Row]:
    assert file.config.pattern is not None
    pattern = re.compile(file.config.pattern)
    for number, line in enumerate(file.lines(newline=""), 1):
        place, text = file.place(number), line.rstrip("\r\n")
        if match := pattern.fullmatch(text):
            yield Row(place, match.groupdict())
        elif text.strip():
            yield Row(place, {}, f"does not match the pattern {file.config.pattern}")


def read_txt(file: RowFile) -> Iterator[Row]:
    for number, line in enumerate(file.lines(newline="\n"), 1):
        yield Row(file.place(number), {"text": line.rstrip("\r\n")})


def read_conll(file: RowFile) -> Iterator[Row]:
    """A sentence a row: each column is the list of its cells. In .conllu files, comments and the parts of contracted
    words are left out."""
    universal = file.path.suffix.lower() == ".conllu"
    names = file.config.columns
    sentence: list[tuple[int, list[str]]] = []
    for number, line in enumerate(chain(file.lines(newline=""), [""]), 1):
        text = line.rstrip("\r\n")
        if not text.strip():
            if sentence:
                names = names or [str(i) for i in range(len(sentence[0][1]))]
                yield _sentence(file, sentence, names)
            sentence = []
            continue
        delimiter = file.config.delimiter or ("\t" if "\t" in text else None)
        # Other spaces than these, such as the one that must not be broken in 10 000, are part of a word.
        cells = text.split(delimiter) if delimiter else re.split(" +", text.strip(" "))
        left_out = text[0] == "#" or not cells[0].isdecimal() if universal else cells[0] == "-DOCSTART-"
        if not left_out:
            sentence.append((number, cells))


def read_squad(file: RowFile) -> Iterator[Row]:
    """A question a row, with its text."""
    try:
        articles = json.loads("".join(file.lines(newline="")))["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    place = f"{file.path}, question {question['id']}"
                    row = {
                        "id": question["id"],
                        "title": article.get("title"),
                        "question": question["question"],
                    }
                    answers = [] if question.get("is_impossible") else question.get("answers", [])
                    yield Row(place, {**row, "context": paragraph["context"], "answers": answers})
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{file.path}: is not SQuAD's JSON, data[].paragraphs[].qas[] ({why})") from None


def read_multirc(file: RowFile) -> Iterator[Row]:
    """An answer a row, with its question and its paragraph; without labels in a test file."""
    for row in read_jsonl(file):
        if row.problem:
            yield row
            continue
        try:
            passage = row.values["passage"]
            for question in passage["questions"]:
                number = {"paragraph": row.values["idx"], "question": question["idx"]}
                for answer in question["answers"]:
                    one = {
                        "paragraph": passage["text"],
                        "question": question["question"],
                        "answer": answer["text"],
                        "idx": {**number, "answer": answer["idx"]},
                    }
                    yield Row(row.place, one | ({"label": answer["label"]} if "label" in answer else {}))
        except (KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            yield Row(row.place, {}, f"is not MultiRC's JSON, passage.questions[].answers[] ({why})")


def _sentence(file: RowFile, lines: list[tuple[int, list[str]]], names: Sequence[str]) -> Row:
    place = file.place(lines[0][0])
    for number, cells in lines:
        if len(cells) != len(names):
            problem = f"has {len(cells)} columns, not {len(names)} ({', '.join(names)})"
            return Row(file.place(number), {}, f"{problem}; of plain text, format=txt reads a text a line")
    return Row(place, {name: list(column) for name, column in zip(names, zip(*(c for _, c in lines)))})
