"""The pairs and masks are those of BERT's own data preparation, as statistics.

`original_examples` tells the published algorithm (Devlin et al. 2019, appendix A.2, and
google-research/bert's create_pretraining_data.py) one sentence at a time; the plan computes it for whole
blocks at once.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pretrain.data.masking import Masking
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.plan import Plan

MAX_LENGTH, EPOCHS = 64, 25


def original_examples(documents: list[list[int]], rng: random.Random) -> Iterator[tuple[int, int, bool]]:
    """Lengths of A and B, and whether B is random, of all examples of a pass. Sentences are lengths."""
    limit = MAX_LENGTH - 3
    for number, document in enumerate(documents):
        target = rng.randint(2, limit) if rng.random() < 0.1 else limit
        position = 0
        while position < len(document):
            end = position + 1
            while end < len(document) and sum(document[position:end]) < target:
                end += 1
            chunk = document[position:end]
            num_a = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a = sum(chunk[:num_a])
            is_random = len(chunk) == 1 or rng.random() < 0.5
            if is_random:
                b = random_segment(documents, number, target - a, rng)
                position += num_a
            else:
                b = sum(chunk[num_a:])
                position = end
            while a + b > limit:
                a, b = (a - 1, b) if a > b else (a, b - 1)
            yield a, b, is_random


def random_segment(documents: list[list[int]], own: int, wanted: int, rng: random.Random) -> int:
    """Length of sentences of another document, from a random one on, as many tokens as wanted."""
    other = rng.choice([number for number in range(len(documents)) if number != own])
    length = 0
    for sentence in documents[other][rng.randrange(len(documents[other])) :]:
        length += sentence
        if length >= wanted:
            break
    return length


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the greatest difference of the two cumulative distributions."""
    values = np.union1d(ours, theirs)
    cumulative = [
        np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (ours, theirs)
    ]
    return float(np.abs(cumulative[0] - cumulative[1]).max())


@pytest.fixture(scope="module")
def theirs(documents: list[list[int]]) -> np.ndarray:
    """(n, 3): A's length, B's length, is B random?"""
    rng = random.Random(0)
    return np.array([example for _ in range(EPOCHS) for example in original_examples(documents, rng)])


@pytest.fixture(scope="module")
def ours(number_store: Any, documents: list[list[int]]) -> np.ndarray:
    plan = Plan(number_store(documents), ObjectiveConfig(), MAX_LENGTH, seed=0)
    examples = plan.take(0, sum(plan.num_examples(epoch) for epoch in range(EPOCHS)))
    return np.stack([examples.a_length, examples.b_length, examples.label], axis=1)


def test_as_many_examples(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert len(ours) == pytest.approx(len(theirs), rel=0.01)


def test_as_many_random_pairs(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert theirs[:, 2].mean() > 0.53  # above one half: a chunk of one sentence always gets a random B
    assert ours[:, 2].mean() == pytest.approx(theirs[:, 2].mean(), abs=0.01)


@pytest.mark.parametrize("label", [0, 1])
def test_the_same_lengths(ours: np.ndarray, theirs: np.ndarray, label: int) -> None:
    """Of A, of B and of both, for true and for random pairs, within chance (p = 0.001)."""
    mine, original = ours[ours[:, 2] == label], theirs[theirs[:, 2] == label]
    bound = 1.95 * np.sqrt(1 / len(mine) + 1 / len(original))
    assert bound < 0.03
    assert distance(mine[:, 0], original[:, 0]) < bound
    assert distance(mine[:, 1], original[:, 1]) < bound
    assert distance(mine[:, 0] + mine[:, 1], original[:, 0] + original[:, 1]) < bound


def test_the_same_number_of_masks(ours: np.ndarray, tokenizer: Any) -> None:
    lengths = ours[:, 0] + ours[:, 1] + 3
    original = [max(1, round(length * 0.15)) for length in lengths.tolist()]
    masking = Masking(ObjectiveConfig(), tokenizer, 0, MAX_LENGTH)
    assert masking.quota(lengths, 0.15).tolist() == original
    capped = Masking(ObjectiveConfig(max_predictions=7), tokenizer, 0, MAX_LENGTH)
    assert capped.quota(lengths, 0.15).tolist() == [min(7, number) for number in original]


def test_tokens_are_lost_at_either_end(number_store: Any) -> None:
    """One sentence of 400 tokens: what is cut in front is binomial, as single tosses of a coin have it."""
    store = number_store([[400]] * 4000)
    examples = Plan(store, ObjectiveConfig(short_prob=0), MAX_LENGTH, seed=0).take(0, 4000)
    lost_a, lost_b = 400 - examples.a_length, 400 - examples.b_length
    assert set(examples.a_length.tolist()) == {31} and set(examples.b_length.tolist()) == {30}
    for lost, front in ((lost_a, examples.a_start % 400), (lost_b, examples.b_start % 400)):
        assert front.mean() == pytest.approx(lost[0] / 2, abs=0.8)
        assert front.std() == pytest.approx(np.sqrt(lost[0]) / 2, rel=0.05)


def test_short_targets_are_uniform_and_met(number_store: Any) -> None:
    """With sentences of two tokens pairs have their document's target, 2 to the limit, or one token more."""
    documents, limit = 4000, MAX_LENGTH - 3
    plan = Plan(number_store([[2] * 100] * documents), ObjectiveConfig(short_prob=1.0), MAX_LENGTH, seed=0)
    examples = plan.take(0, plan.num_examples(0))
    longest = np.zeros((2, documents), np.int64)
    np.maximum.at(longest, (examples.label, examples.a_start // 200), examples.a_length + examples.b_length)
    both = (longest > 0).all(axis=0)
    assert both.mean() > 0.95
    assert (longest[0, both] == longest[1, both]).mean() > 0.8  # the others met the end of a document
    counts = np.bincount((longest.max(axis=0) + 1) // 2)[2:]  # two sentences at least, whatever the target
    expected = documents / (limit - 1) * np.array([3] + [2] * 28 + [1])
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("max_length", [32, 128])
def test_balanced_pairs_are_half_random(
    number_store: Any, documents: list[list[int]], max_length: int
) -> None:
    plan = Plan(number_store(documents), ObjectiveConfig(balance_pairs=True), max_length, seed=0)
    for epoch in range(3):
        count = plan.num_examples(epoch)
        labels = plan.blocks.examples(epoch, 0).label
        assert len(labels) == count and labels.sum() == count // 2
