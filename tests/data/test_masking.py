"""Chosen tokens: how many, which, and what becomes of them."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert.config import Length
from bert.data.ragged import starts_of
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.data.masking import Masked, Masking, SpanLengths, fill_quota
from pretrain.data.objective import MaskProbRamp, ObjectiveConfig

CLS, SEP, MASK, UNK = 2, 3, 4, 1
MAX_LENGTH = 64
DATA_PAGE = Path(__file__).parents[2] / "docs" / "own-language.md"
segments = st.lists(st.integers(1, 30), min_size=1, max_size=2)
batches = st.lists(segments, min_size=1, max_size=12)
objectives = st.builds(
    ObjectiveConfig,
    masking=st.sampled_from(["token", "whole_word", "span"]),
    quota=st.sampled_from(["exact", "bernoulli"]),
    span_lengths=st.sampled_from(["geometric", "uniform", "harmonic"]),
)


def rows_of(
    batch: list[list[int]], rng: np.random.Generator, unknown: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and lengths of rows with segments of these lengths; some tokens are unknown."""
    rows = []
    for lengths in batch:
        row = [CLS]
        for length in lengths:
            text = rng.integers(5, 8_000, length)
            row += np.where(rng.random(length) < unknown, UNK, text).tolist() + [SEP]
        rows.append(row)
    return np.concatenate(rows), np.array([len(row) for row in rows])


def many(
    masking: Masking, rows: int = 4000, length: int = 60, mask_prob: float = 0.15
) -> tuple[np.ndarray, Masked]:
    """Rows of one segment, (rows, length + 2) ids, and how they are masked."""
    ids, lengths = rows_of([[length]] * rows, np.random.default_rng(0), unknown=0)
    return ids.reshape(rows, -1), masking(ids, lengths, np.arange(rows), mask_prob)


@given(batches, objectives, st.floats(0.01, 0.5), st.integers(0, 10**6))
def test_special_tokens_are_never_chosen_nor_put_anywhere(
    tokenizer: Tokenizer, batch: Any, objective: ObjectiveConfig, mask_prob: float, first: int
) -> None:
    ids, lengths = rows_of(batch, np.random.default_rng(first))
    masked = Masking(objective, tokenizer, 0, MAX_LENGTH)(
        ids, lengths, first + np.arange(len(lengths)), mask_prob
    )
    assert not np.isin(ids[masked.chosen], tokenizer.special_ids).any()
    assert np.array_equal(masked.input_ids.values[~masked.chosen], ids[~masked.chosen])
    assert not np.isin(masked.input_ids.values[masked.chosen], [0, UNK, CLS, SEP]).any()
    assert np.array_equal(masked.labels, ids)


@given(batches, objectives, st.integers(0, 10**6), st.data())
def test_masks_do_not_depend_on_company(
    tokenizer: Tokenizer, batch: Any, objective: ObjectiveConfig, first: int, data: st.DataObject
) -> None:
    """Any part of a batch, in another process or micro-batch, is masked as in the whole."""
    ids, lengths = rows_of(batch, np.random.default_rng(1))
    numbers = first + 700 * np.arange(len(lengths))
    masking = Masking(objective, tokenizer, 5, MAX_LENGTH)
    whole = masking(ids, lengths, numbers, 0.2)
    taken = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)).filter(any))
    rows = np.flatnonzero(taken)
    inside = np.repeat(np.array(taken), lengths)
    part = masking(ids[inside], lengths[rows], numbers[rows], 0.2)
    assert np.array_equal(part.input_ids.values, whole.input_ids.take(rows).values)
    assert np.array_equal(part.chosen, whole.chosen[inside])


@given(batches, st.floats(0.01, 0.6))
def test_the_quota_is_met(tokenizer: Tokenizer, batch: Any, mask_prob: float) -> None:
    ids, lengths = rows_of(batch, np.random.default_rng(2))
    masking = Masking(ObjectiveConfig(), tokenizer, 0, MAX_LENGTH)
    masked = masking(ids, lengths, np.arange(len(lengths)), mask_prob)
    text = np.add.reduceat(~np.isin(ids, tokenizer.special_ids), masked.input_ids.offsets[:-1], dtype=int)
    chosen = np.add.reduceat(masked.chosen, masked.input_ids.offsets[:-1], dtype=int)
    quota = [max(1, round(length * mask_prob)) for length in lengths.tolist()]
    assert np.array_equal(chosen, np.minimum(quota, text))


@given(batches, st.sampled_from(["whole_word", "span"]), st.floats(0.05, 0.5))
def test_words_are_whole_and_the_quota_is_kept(
    tokenizer: Tokenizer, batch: Any, masking: Any, mask_prob: float
) -> None:
    ids, lengths = rows_of(batch, np.random.default_rng(3))
    objective = ObjectiveConfig(masking=masking)
    masked = Masking(objective, tokenizer, 0, MAX_LENGTH)(ids, lengths, np.arange(len(lengths)), mask_prob)
    text = ~np.isin(ids, tokenizer.special_ids)
    inside = np.flatnonzero(tokenizer.continues_word[ids] & text & np.append(False, text[:-1]))
    assert np.array_equal(masked.chosen[inside], masked.chosen[inside - 1])
    for first, last in zip(masked.input_ids.offsets, masked.input_ids.offsets[1:]):
        quota = max(1, round((last - first) * mask_prob))
        if masked.chosen[first:last].sum() > quota:  # then one word alone exceeds the quota
            places = first + np.flatnonzero(masked.chosen[first:last])
            assert np.array_equal(places, np.arange(places[0], places[-1] + 1))
        assert masked.chosen[first:last].any() == text[first:last].any()


def test_every_place_has_the_same_chance(tokenizer: Tokenizer) -> None:
    for objective in (
        ObjectiveConfig(),
        ObjectiveConfig(quota="bernoulli"),
        ObjectiveConfig(masking="whole_word"),
    ):
        ids, masked = many(Masking(objective, tokenizer, 0, MAX_LENGTH))
        shares = masked.chosen.reshape(ids.shape)[:, 1:-1].mean(axis=0)
        assert shares.mean() == pytest.approx(0.15, abs=0.003)
        assert shares == pytest.approx(shares.mean(), abs=4.5 * np.sqrt(0.15 * 0.85 / 4000))


@pytest.mark.parametrize("masking", ["token", "whole_word", "span"])
@pytest.mark.parametrize("probs", [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.3, 0.3)])
def test_what_becomes_of_chosen_tokens(
    tokenizer: Tokenizer, masking: Any, probs: tuple[float, float]
) -> None:
    objective = ObjectiveConfig(masking=masking, mask_token_prob=probs[0], random_token_prob=probs[1])
    ids, masked = many(Masking(objective, tokenizer, 0, MAX_LENGTH))
    before, after = ids.flatten()[masked.chosen], masked.input_ids.values[masked.chosen]
    assert (after == MASK).mean() == pytest.approx(probs[0], abs=0.012)
    assert ((after != MASK) & (after != before)).mean() == pytest.approx(probs[1], abs=0.012)


def test_random_tokens_are_any_normal_token(tokenizer: Tokenizer) -> None:
    objective = ObjectiveConfig(mask_token_prob=0, random_token_prob=1)
    _, masked = many(Masking(objective, tokenizer, 0, MAX_LENGTH), rows=20_000)
    counts = np.bincount(masked.input_ids.values[masked.chosen] // 400, minlength=20)
    assert counts[:20] == pytest.approx(counts.mean(), rel=0.04)


def test_bernoulli_leaves_the_number_to_chance(tokenizer: Tokenizer) -> None:
    ids, masked = many(Masking(ObjectiveConfig(quota="bernoulli"), tokenizer, 0, MAX_LENGTH), mask_prob=0.3)
    numbers = masked.chosen.reshape(ids.shape).sum(axis=1)
    assert numbers.mean() == pytest.approx(18, rel=0.02)
    assert numbers.var() == pytest.approx(60 * 0.3 * 0.7, rel=0.1)


@pytest.mark.parametrize(
    ("name", "mean", "longest"), [("geometric", 3.80, 10), ("uniform", 5.5, 10), ("harmonic", 3.41, 10)]
)
def test_spans_have_the_lengths_asked_for(tokenizer: Tokenizer, name: Any, mean: float, longest: int) -> None:
    """In words; 3.8 is the mean that SpanBERT's paper states for geometric lengths of p = 0.2 up to 10."""
    masking = Masking(ObjectiveConfig(masking="span", span_lengths=name), tokenizer, 0, 512)
    ids, lengths = rows_of([[500]] * 300, np.random.default_rng(0), unknown=0)
    starts, numbers = starts_of(lengths), np.arange(300)
    words = masking.words.groups(ids, ids > MASK)
    begins = masking.span_lengths.begins(words, starts, masking._draw(7, lengths, numbers))  # type: ignore[arg-type]
    assert not (begins & tokenizer.continues_word[ids])[2:-1][ids[1:-2] > MASK].any()
    spans = np.diff(np.flatnonzero(begins[words.first]))
    assert spans.max() == longest and spans.min() == 1
    assert spans.mean() == pytest.approx(mean, rel=0.02)


def test_chosen_spans_are_whole(tokenizer: Tokenizer) -> None:
    """Runs of chosen tokens are longer than single words make them, and share one fate."""
    runs = {}
    for masking in ("whole_word", "span"):
        _ids, masked = many(
            Masking(ObjectiveConfig(masking=masking), tokenizer, 0, 256), rows=1000, length=250
        )
        bounds = np.flatnonzero(np.diff(masked.chosen, prepend=False, append=False))
        runs[masking] = (bounds[1::2] - bounds[::2]).mean()
        mixed = [
            len(set((masked.input_ids.values[a:b] == MASK).tolist())) > 1
            for a, b in zip(bounds[::2], bounds[1::2])
        ]
        runs[masking + " mixed"] = np.mean(mixed)
    assert runs["span"] > 2 * runs["whole_word"]
    assert runs["span mixed"] < 0.1  # two spans that touch
    assert SpanLengths(ObjectiveConfig(masking="span", span_max=1)).bounds.size == 0


def test_groups_are_taken_in_order_while_they_fit() -> None:
    """As in the original: a group that would exceed the quota is passed over, a later one may still fit."""
    keys = np.array([10, 20, 30, 40, 10, 20], np.uint64)
    row, sizes, places = np.array([0, 0, 0, 0, 1, 1]), np.array([2, 3, 2, 1, 9, 5]), np.arange(6)
    accepted = fill_quota(keys << np.uint64(8), places, row, sizes, np.array([5, 2]))
    assert accepted.tolist() == [True, True, False, False, True, False]
    accepted = fill_quota(keys << np.uint64(8), places, row, sizes, np.array([4, 14]))
    assert accepted.tolist() == [True, False, True, False, True, True]


@pytest.fixture
def segmenters(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_words")
    module.__dict__.update(
        pairs=lambda tokens: [2] * (len(tokens) // 2) + [1] * (len(tokens) % 2),
        wrong=lambda tokens: [len(tokens) + 1],
        words=lambda tokens: tokens,
    )
    monkeypatch.setitem(sys.modules, "my_words", module)


@pytest.mark.usefixtures("segmenters")
def test_a_segmenter_makes_words(tokenizer: Tokenizer) -> None:
    objective = ObjectiveConfig(masking="whole_word", segmenter="my_words:pairs")
    ids, masked = many(Masking(objective, tokenizer, 0, MAX_LENGTH), rows=200)
    chosen = masked.chosen.reshape(ids.shape)[:, 1:-1]
    assert chosen.sum() == 200 * 8  # the quota of 9 is odd
    assert np.array_equal(chosen[:, ::2], chosen[:, 1::2])


@pytest.mark.usefixtures("segmenters")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "made words of 61 tokens out of 60"),
        ("words", "returned no numbers"),
        ("none", "cannot be loaded"),
    ],
)
def test_wrong_segmenters_are_refused(tokenizer: Tokenizer, name: str, message: str) -> None:
    objective = ObjectiveConfig(masking="whole_word", segmenter=f"my_words:{name}")
    with pytest.raises(UserError, match=message):
        many(Masking(objective, tokenizer, 0, MAX_LENGTH), rows=2)


def test_chinese_words_are_masked_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By jieba, with the function that the documentation shows."""
    pytest.importorskip("jieba").setLogLevel("WARNING")
    shown = re.search(r"```python\n(# chinese_words\.py.*?)```", DATA_PAGE.read_text(), re.DOTALL)
    assert shown is not None
    module = ModuleType("chinese_words")
    exec(shown[1], module.__dict__)
    monkeypatch.setitem(sys.modules, "chinese_words", module)
    sentence = "中国科学院 在 北京 举行 bert model ##s 会议 。"
    words = [list(word) if not word.strip("#").isascii() else [word] for word in sentence.split()]
    tokens = [token for word in words for token in word]
    sizes = [5, 1, 2, 2, 1, 2, 2, 1]
    assert module.__dict__["split"](tokens) == sizes
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]))
    tokenizer = Tokenizer.load(tmp_path / "vocab.txt")
    row = [CLS, *map(tokenizer.id_of, tokens), SEP]
    ids, lengths = np.array(row * 100), np.full(100, len(row))
    objective = ObjectiveConfig(masking="whole_word", segmenter="chinese_words:split", mask_prob=0.4)
    chosen = Masking(objective, tokenizer, 0, MAX_LENGTH)(ids, lengths, np.arange(100), 0.4).chosen
    starts = np.cumsum([0, *sizes[:-1]])
    share = np.add.reduceat(chosen.reshape(100, -1)[:, 1:-1], starts, axis=1) / sizes
    assert set(share.ravel()) == {0.0, 1.0} and (share.any(axis=0)).all()


def test_the_probability_moves_over_the_run() -> None:
    objective = ObjectiveConfig(mask_prob=MaskProbRamp(0.3, 0.15))
    assert [objective.mask_prob_at(step, 101) for step in (0, 50, 100)] == pytest.approx([0.3, 0.225, 0.15])
    early = ObjectiveConfig(mask_prob=MaskProbRamp(0.3, 0.15, Length(11)))
    assert [early.mask_prob_at(step, None) for step in (0, 5, 10, 99)] == pytest.approx(
        [0.3, 0.225, 0.15, 0.15]
    )
    assert objective.highest_mask_prob == 0.3 and ObjectiveConfig().highest_mask_prob == 0.15
    assert objective.mask_prob_at(50, None) == 0.3, "at its start until the run knows its steps"


def test_mistakes_in_the_objective() -> None:
    for wrong in ({"mask_token_prob": 0.95}, {"segmenter": "a"}, {"segmenter": "a:b"}):
        with pytest.raises(ValueError, match=r"random_token_prob|segmenter"):
            ObjectiveConfig(**wrong)  # type: ignore[arg-type]
