"""Files of minimal pairs, and what is made of the answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bert
from bert.errors import UserError
from pretrain.minimal_pairs import FORMS, measure_suite, minimal_pairs, names_of, read_questions, read_suite

BLIMP = FORMS["blimp"]


def test_a_line_is_a_pair_whatever_its_sentences_hold(tmp_path: Path) -> None:
    pairs = [("She runs.", "She run."), ("One\u2028two.", "Two\x85one.")]
    lines = [
        json.dumps({"sentence_good": good, "sentence_bad": bad}, ensure_ascii=False) for good, bad in pairs
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\r\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert [question.texts for question in read_questions(file, BLIMP)] == pairs


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
        read_questions(file, BLIMP)


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


def write_lines(file: Path, *rows: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def blimp(good: str, bad: str, uid: str, term: str, field: str) -> dict[str, Any]:
    names = {"UID": uid, "linguistics_term": term, "field": field}
    return {"sentence_good": good, "sentence_bad": bad, **names, "pairID": "0"}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Questions of each form. The fewer x a text has where it is scored, the better it is, by `fewer_x`."""
    root = tmp_path / "full_eval"
    right, wrong, tie = ("a", "x"), ("x", "a"), ("xa", "ax")
    for uid, term, field, *pairs in (
        ("irregular_1", "irregular", "morphology", right, right, right, wrong),
        ("irregular_2", "irregular", "morphology", right),
        ("island_1", "island", "syntax_semantics", wrong, tie),
        ("npi_1", "npi", "syntax/semantics", right, tie),
    ):
        rows = [blimp(good, bad, uid, term, field) for good, bad in pairs]
        write_lines(root / "blimp_filtered" / f"{uid}.jsonl", *rows)
    for name, (good, bad) in {"turn_taking": right, "hypernym": wrong}.items():
        write_lines(root / "supplement" / f"{name}.jsonl", {"sentence_good": good, "sentence_bad": bad})
    ewok = {"Context1": "x x", "Context2": "", "Target1": "a x", "Target2": "x x", "Domain": "social"}
    write_lines(root / "ewok" / "social.jsonl", ewok, {**ewok, "Target1": "x x x"})
    comps = {"prefix_acceptable": "x x", "prefix_unacceptable": "a", "property_phrase": "is x"}
    write_lines(root / "comps" / "comps_base.jsonl", comps)
    tracked = {"input_prefix": "x x x ", "options": ["a", "x", "x x", "ax"], "numops": 0}
    late = {**tracked, "options": ["x", "x x", "a", "x"], "numops": 1}
    write_lines(root / "entity_tracking" / "regular.jsonl", tracked, late, late)
    write_lines(root / "wug" / "wug.jsonl", {"sentences": "a\tb", "ratio": 0.5})
    (root / "wug" / "torn.jsonl").write_bytes(b"\0\xff")
    return root


@pytest.fixture
def fewer_x(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A scorer that counts x; what it is asked: what is only read, and what is scored."""
    asked: list[tuple[str, str]] = []

    def score(source: Any, texts: list[str], budget: int, scorer: str, starts: list[int]) -> np.ndarray:
        asked.extend((text[:start], text[start:]) for text, start in zip(texts, starts, strict=True))
        return np.array([-text[start:].count("x") for text, start in zip(texts, starts, strict=True)], float)

    monkeypatch.setattr("bert.inference.score", score)
    return asked


def test_a_suite_is_measured_by_paradigm_phenomenon_and_field(
    suite: Path, fewer_x: list[tuple[str, str]]
) -> None:
    result = measure_suite(("model", "tokenizer"), read_suite(suite), "original", 100)  # type: ignore[arg-type]
    assert set(result["sets"]) == {"blimp_filtered", "supplement", "ewok", "comps", "entity_tracking"}
    assert set(result["left_out"]) == {"wug/wug.jsonl", "wug/torn.jsonl"}
    assert result["sets"]["blimp_filtered"] == {
        "accuracy": (0.75 + 1 + 0 + 0.5) / 4,
        "chance": 0.5,
        "questions": 9,
        "fields": {"morphology": 0.875, "syntax/semantics": 0.25},
        "phenomena": {"irregular": 0.875, "island": 0.0, "npi": 0.5},
        "paradigms": {"irregular_1": 0.75, "irregular_2": 1.0, "island_1": 0.0, "npi_1": 0.5},
    }
    supplement = result["sets"]["supplement"]
    assert (supplement["accuracy"], supplement["phenomena"], supplement["fields"]) == (0.5, {}, {})
    assert supplement["paradigms"] == {"hypernym": 0.0, "turn_taking": 1.0}
    assert result["sets"]["ewok"]["paradigms"] == {"social": 0.5}
    assert result["sets"]["comps"]["paradigms"] == {"comps_base": 0.0}, "the same phrase is a tie"
    tracking = result["sets"]["entity_tracking"]
    assert tracking["paradigms"] == {"regular_0_ops": 1.0, "regular_1_ops": 0.0}
    assert (tracking["chance"], tracking["phenomena"]) == (0.25, {"regular": 0.5})
    assert ("x x", " a x") in fewer_x, "of EWoK's texts the target is scored, after the first context"
    assert {("x x ", "is x"), ("a ", "is x")} <= set(fewer_x), "of those of COMPS the property"
    assert ("x x x ", "ax") in fewer_x, "of entity tracking the ending"


def test_files_in_the_folder_itself_are_a_set(tmp_path: Path) -> None:
    write_lines(tmp_path / "mine" / "a.jsonl", {"sentence_good": "a", "sentence_bad": "b"})
    assert list(read_suite(tmp_path / "mine").files) == ["mine"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "suite: .* is no folder"),
        ({"text": "a", "label": 1}, "suite: .* has no jsonl file of a known form; minimal pairs are lines"),
        (
            {"input_prefix": "a", "options": ["b"], "numops": 0},
            "'options' is not a list of two texts or more",
        ),
        ({"input_prefix": "a", "options": ["b", 1], "numops": 0}, "line 1: 'options' is not a text"),
    ],
)
def test_a_suite_that_cannot_be_measured_is_refused(tmp_path: Path, row: Any, message: str) -> None:
    if row is not None:
        write_lines(tmp_path / "suite" / "a.jsonl", row)
    with pytest.raises(UserError, match=message):
        read_suite(tmp_path / "suite")


def test_a_broken_line_of_a_known_form_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"sentence_good": "a", "sentence_bad": "b"}, {"sentence_good": "a"})
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: 'sentence_bad' is not there"):
        read_suite(tmp_path)


def test_a_text_that_is_too_long_leaves_its_file_out(folders: Any, tmp_path: Path) -> None:
    source = (bert.load(folders["bert"]), bert.Tokenizer.load(folders["bert"]))
    write_lines(tmp_path / "long.jsonl", {"sentence_good": "a " * 80, "sentence_bad": "b"})
    write_lines(tmp_path / "short.jsonl", {"sentence_good": "a", "sentence_bad": "b"})
    result = measure_suite(source, read_suite(tmp_path), "original", 100)
    assert list(result["sets"][tmp_path.name]["paradigms"]) == ["short"]
    assert "line 1: has 82 tokens and the model reads 64" in result["left_out"]["long.jsonl"]


def test_sentences_with_the_same_tokens_tie_and_are_wrong(tokenizer: bert.Tokenizer, tmp_path: Path) -> None:
    """Matrix products of other sizes round otherwise, so the two would differ in the last bits."""
    torch.manual_seed(0)
    config = bert.EncoderConfig(vocab_size=tokenizer.vocab_size, hidden_size=256, num_layers=2, num_heads=4)
    model = bert.build(config, "MaskedLanguageModel").eval()
    same = [
        "the cat sat on a mat.",
        "a dog was good",
        "a",
        "walking dogs played in the capital of france",
        "♥ in",
    ]
    pairs = [(text, text.upper().replace("♥", "♦")) for text in (*same, *same[:2], *same, "paris")]
    rows = [{"sentence_good": good, "sentence_bad": bad} for good, bad in pairs]
    write_lines(tmp_path / "same.jsonl", *rows)
    for budget in (9, 17, 64):
        assert minimal_pairs((model, tokenizer), [tmp_path / "same.jsonl"], "original", budget)["same"] == 0.0
