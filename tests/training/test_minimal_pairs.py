"""Files of minimal pairs."""

import json
from pathlib import Path

import pytest

from bert.errors import UserError
from pretrain.evaluate import names_of, read_pairs


def test_a_line_is_a_pair_whatever_its_sentences_hold(tmp_path: Path) -> None:
    pairs = [("She runs.", "She run."), ("One\u2028two.", "Two\x85one.")]
    lines = [
        json.dumps({"sentence_good": good, "sentence_bad": bad}, ensure_ascii=False) for good, bad in pairs
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\r\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert list(zip(*read_pairs(file), strict=True)) == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            r"pairs\.jsonl: has no rows; minimal pairs are lines of JSON with sentence_good and sentence_bad",
        ),
        ("{}", r"line 1: 'sentence_good' is not there, only nothing; minimal pairs are"),
        ('{"sentence_good": 1, "sentence_bad": "x"}', "line 1: 'sentence_good' is not a text"),
        ('{"sentence_good": "x", "sentence_bad": "\\ud83d"}', "line 1: has half a surrogate pair"),
        ("[]", "line 1: is not a JSON object"),
        ('"x"', "line 1: is not a JSON object"),
        ("x", "line 1: is not JSON"),
    ],
)
def test_other_lines_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_pairs(file)


def test_each_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Files of equal names in several folders do not overwrite each other's results, nor the mean."""
    a, b = tmp_path / "a", tmp_path / "b"
    names = {
        "a/cats": a / "cats.jsonl",
        "b/cats": b / "cats.jsonl",
        "dogs": b / "dogs.jsonl",
        "owls.x.jsonl": b / "owls.x.jsonl",
        "owls.y.jsonl": b / "owls.y.jsonl",
        "mean.jsonl": b / "mean.jsonl",
    }
    assert names_of([*names.values(), b / ".." / "b" / "dogs.jsonl"]).keys() == names.keys()
    assert names_of(list(names.values())) == names
    assert list(names_of([Path("pairs")])) == ["pairs"]
