"""Files of minimal pairs."""

import json
from pathlib import Path

import pytest

from bert.errors import UserError
from pretrain.evaluate import read_pairs


def test_a_line_is_a_pair_whatever_its_sentences_hold(tmp_path: Path) -> None:
    pairs = [("She runs.", "She run."), ("One\u2028two.", "Two\x85one.")]
    lines = [
        json.dumps({"sentence_good": good, "sentence_bad": bad}, ensure_ascii=False) for good, bad in pairs
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\r\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert list(zip(*read_pairs(file), strict=True)) == pairs


@pytest.mark.parametrize("text", ["", "{}", '{"sentence_good": 1, "sentence_bad": "x"}', "[]", '"x"'])
def test_other_lines_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match="line 1: is no JSON object with sentence_good"):
        read_pairs(file)
