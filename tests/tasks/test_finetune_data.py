"""Files of tasks: what is read, and what is said when they are wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from bert.config import load
from bert.errors import UserError
from finetune.config import FinetuneConfig, TaskConfig
from finetune.data import load_task

ROWS = [('good "film"', "a"), ("bad, really", "b"), ("so so", "a"), ("fine\tindeed", "b")]


def task(**values: Any) -> TaskConfig:
    return TaskConfig(**values)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def csv_file(tmp_path: Path) -> str:
    return write(tmp_path / "a.csv", "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)))


def test_every_format_reads_the_same_rows(tmp_path: Path) -> None:
    quoted = "".join('"{}",{}\n'.format(text.replace('"', '""'), label) for text, label in ROWS)
    table = pyarrow.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    write(tmp_path / "a.csv", "\ufefftext,label\r\n" + quoted)
    write(tmp_path / "headerless.csv", quoted)
    write(tmp_path / "a.jsonl", "".join(str(pyarrow_row) + "\n\n" for pyarrow_row in map(_json, ROWS)))
    write(tmp_path / "a.txt", "".join(f"{label}:{text}\n" for text, label in ROWS))
    write(tmp_path / "b.txt", "label;text\n" + "".join(f"{label};{text}\n" for text, label in ROWS))
    options: dict[str, dict[str, Any]] = {
        "a.csv": {},
        "a.jsonl": {},
        "a.parquet": {},
        "headerless.csv": {"columns": ["text", "label"]},
        "a.txt": {"pattern": "(?P<label>.*?):(?P<text>.*)"},
        "b.txt": {"format": "tsv", "delimiter": ";"},
    }
    for name, layout in options.items():
        data = load_task(task(train=str(tmp_path / name), validation=str(tmp_path / name), **layout))
        assert data.train.texts == [text for text, _ in ROWS], name
        assert data.train.targets.tolist() == [0, 1, 0, 1], name
        assert data.labels.names == ("a", "b")


def _json(row: tuple[str, str]) -> str:
    import json

    return json.dumps({"text": row[0], "label": row[1]})


def test_quotation_marks_are_characters_in_tsv(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", 'text\tlabel\n"never closed\t1\nsaid "so"\t0\n')
    assert load_task(task(train=train, validation=train)).train.texts == ['"never closed', 'said "so"']
    with pytest.raises(UserError, match=r"a\.tsv, line 2: .*quotes=false"):
        load_task(task(train=train, validation=train, quotes=True))


@pytest.mark.parametrize(
    ("labels", "names", "targets"),
    [
        (None, ("2", "10", "x"), [1, 0, 2, 0]),
        (["x", "10", "2"], ("x", "10", "2"), [1, 2, 0, 2]),
        ({"2": "low", "10": "high", "x": "low"}, ("low", "high"), [1, 0, 0, 0]),
    ],
)
def test_labels_are_sorted_or_in_the_order_given(
    tmp_path: Path, labels: Any, names: Any, targets: Any
) -> None:
    train = write(
        tmp_path / "a.jsonl", "".join(f'{{"text": "t", "label": {v}}}\n' for v in ("10", "2.0", '"x"', "2"))
    )
    data = load_task(task(train=train, validation=train, labels=labels))
    assert data.labels.names == names
    assert data.train.targets.tolist() == targets


def test_multi_label_and_regression_targets(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", "text\tlabel\nt\tred,blue\nt\t\nt\tblue\n")
    data = load_task(task(train=train, validation=train, kind="multi_label"))
    assert data.labels.names == ("blue", "red")
    assert data.train.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    train = write(tmp_path / "b.tsv", "text\tscore\nt\t1.5\nt\t-2\n")
    data = load_task(task(train=train, validation=train, kind="regression", label_column="score"))
    assert data.labels.names == ("score",)
    assert data.train.targets.tolist() == [1.5, -2.0]


def test_a_share_of_train_is_held_out_without_a_validation_file(csv_file: str) -> None:
    data = load_task(task(train=csv_file, validation_share=0.25))
    assert len(data.train) == 15 and len(data.validation) == 5
    assert sorted(data.train.texts + data.validation.texts) == sorted(f"text {i}" for i in range(20))
    assert load_task(task(train=csv_file, validation_share=0.25)).validation.texts == data.validation.texts


def test_a_dataset_gives_its_splits_and_its_own_order_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "no"])}
    )
    table = datasets.Dataset.from_dict(
        {"sentence": ["s1", "s2", "s3"], "label": [0, 1, -1]}, features=features
    )
    for split in ("train", "validation"):
        (tmp_path / "set").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / "set" / f"{split}.parquet")
    values = {"dataset": str(tmp_path / "set"), "validation": "validation", "text_column": "sentence"}
    data = load_task(task(**values, bad_rows="skip"))
    assert data.labels.names == ("yes", "no")
    assert data.train.texts == ["s1", "s2"] and data.train.targets.tolist() == [0, 1]
    with pytest.raises(UserError, match=r"\(train\), row 3: has no label in column 'label'"):
        load_task(task(**values))
    with pytest.raises(UserError, match=r"task\.dataset: .* cannot be loaded"):
        load_task(task(**values, test="nowhere", bad_rows="skip"))


MISTAKES: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("a.csv", b"", {}, r"a\.csv: has no rows"),
    ("a.csv", b"text,label\n", {}, r"a\.csv: has no rows"),
    (
        "a.csv",
        b"Text,label\nx,1\ny,0\n",
        {},
        r"a\.csv, line 2: there is no column 'text' \(did you mean Text\?\); there are: Text, label",
    ),
    ("a.csv", b"text,label\nx,1\ny\n", {}, r"a\.csv, line 3: has 1 cells for 2 columns \(text, label\)"),
    ("a.csv", b"text,label\nx,1\ny,\n", {}, r"a\.csv, line 3: has no label in column 'label'"),
    ("a.csv", b"text,label\nx,1\n ,0\n", {}, r"a\.csv, line 3: has no text in column 'text'"),
    ("a.csv", b"text,label\nx,1\ny,0\n", {"pair_column": "other"}, r"no column 'other'"),
    (
        "a.csv",
        b"text,label\nx,1\ny,0\n",
        {"group_column": "{text[part]}"},
        r"line 2: has no 'part' in column 'text'",
    ),
    ("a.csv", b"text,label\nx,1\ny,1\n", {}, r"task\.label_column: 'label' needs 2 labels or more, has 1"),
    (
        "a.csv",
        b"text,label\nx,pos\ny,nge\n",
        {"labels": ["pos", "neg"]},
        r"line 3: label 'nge' is not one of the task's labels: pos, neg \(did you mean neg\?\)",
    ),
    ("a.csv", b"text,label\nx,1\ny,high\n", {"kind": "regression"}, r"line 3: label 'high' is not a number"),
    ("a.csv", b"text,text\nx,1\n", {}, r"line 1: two columns are called 'text'"),
    ("a.csv", b"text,label\nx,1\ncaf\xe9,0\n", {}, r"a\.csv, line 3: is not text in UTF-8"),
    ("a.csv", b"t\0e\0x\0t\0", {}, r"a\.csv: is not text in UTF-8"),
    ("a.jsonl", b'{"text": "x", "label": 1}\n{"text"\n', {}, r"a\.jsonl, line 2: is not JSON"),
    ("a.jsonl", b"[" * 100_000, {}, r"a\.jsonl, line 1: cannot be read as JSON"),
    (
        "a.jsonl",
        b'{"text": "\\ud83d", "label": 1}\n',
        {},
        r"line 1: has half a surrogate pair in column 'text'",
    ),
    ("a.jsonl", b"[1]\n", {}, r"a\.jsonl, line 1: is not a JSON object"),
    (
        "a.txt",
        b"A x\nBy\n",
        {"pattern": r"(?P<label>\w) (?P<text>.+)"},
        r"a\.txt, line 2: does not match the pattern",
    ),
    ("a.dat", b"x\n", {}, r"a\.dat: its name does not show the format; give format=csv\|tsv"),
    (
        "a.txt",
        b"x\n",
        {},
        r"line 1: there is no column 'label'; it is read as plain text, .*: give format=csv\|tsv.* or a pattern",
    ),
    ("a.parquet", b"nonsense", {}, r"a\.parquet: cannot be read as parquet"),
]


@pytest.mark.parametrize(("name", "content", "values", "message"), MISTAKES)
def test_mistakes_are_reported_with_file_and_line(
    tmp_path: Path, name: str, content: bytes, values: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_task(task(train=str(tmp_path / name), **values))
    assert "\n" not in str(caught.value)


def test_several_labels_a_text_need_one_at_least(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,label\nx,\ny,\n")
    with pytest.raises(UserError, match=r"'label' needs 1 labels or more, has none"):
        load_task(task(train=train, validation=train, kind="multi_label"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        load_task(task(train=str(tmp_path / "gone.csv")))
    with pytest.raises(UserError, match="is a folder"):
        load_task(task(train=str(tmp_path)))


def test_a_label_that_train_does_not_have(tmp_path: Path, csv_file: str) -> None:
    validation = write(tmp_path / "v.csv", "text,label\nx,a\ny,c\n")
    with pytest.raises(UserError, match=r"v\.csv, line 3: label 'c' is not one of the task's labels: a, b"):
        load_task(task(train=csv_file, validation=validation))
    data = load_task(task(train=csv_file, validation=validation, bad_rows="skip"))
    assert data.validation.texts == ["x"]
    assert data.notes == [
        f"1 rows of validation are left out, the first: {validation}, line 3: label 'c' is not one of "
        "the task's labels: a, b"
    ]


def test_bad_rows_can_be_left_out(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,label\nx,1\n,1\ny\ny,0\nz,\n")
    data = load_task(task(train=train, validation=train, bad_rows="skip"))
    assert data.train.texts == ["x", "y"] and data.train.targets.tolist() == [1, 0]
    assert data.notes[0].startswith("3 rows of train are left out, the first: ")


@pytest.mark.parametrize("pattern", ["(", "no groups", r"(\w+)"])
def test_a_bad_pattern_is_refused_before_anything_is_read(pattern: str) -> None:
    with pytest.raises(UserError, match=r"task\.pattern: "):
        load(FinetuneConfig, None, ["run_dir=r", "model.from=m", f"task.pattern='{pattern}'"])


def test_shipped_configurations_are_valid(root: Path) -> None:
    files = sorted((root / "configs" / "finetune").rglob("*.yaml"))
    assert {"classification.yaml", "sst2.yaml", "trec.yaml", "mnli.yaml"} <= {file.name for file in files}
    for file in files:
        config = load(FinetuneConfig, file)
        assert config.batch.max_length <= config.batch.micro_tokens
        assert file.read_text().startswith("# ")


def test_targets_have_the_dtype_their_loss_takes(csv_file: str) -> None:
    assert load_task(task(train=csv_file)).train.targets.dtype == np.int64
