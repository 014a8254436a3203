"""Batches of fine-tuning: what a step trains on, whoever carries it out."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace

from bert.data.packing import pack_by_length
from bert.data.ragged import Ragged
from bert.errors import UserError
from bert.model import models
from bert.model.config import EncoderConfig, Labels
from bert.tokenizer import Tokenizer
from finetune.batches import FinetuningBatches, evaluation_batches
from finetune.config import KINDS, BatchConfig
from finetune.evaluate import outputs_of
from finetune.metrics import Array
from finetune.splits import Split, TokenizedSplit
from finetune.tasks.texts import pooled

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=60).map(np.array)


def encoded(num: int = 23, targets: Array | None = None) -> TokenizedSplit:
    """Sequences of various lengths whose ids tell them apart."""
    rows = [[1, *(5 + (i * 7 + np.arange(1 + i % 7)) % 40), 2] for i in range(num)]
    ids = Ragged.of(rows, np.int32)
    segments = np.zeros(len(ids.values), dtype=np.int8)
    targets = np.arange(num) % 3 if targets is None else targets
    split = Split([""] * num, None, targets)
    return TokenizedSplit(split, ids, segments, targets, example_of=np.arange(num))


@given(LENGTHS, st.integers(20, 80), st.integers(1, 4), st.booleans())
def test_parts_hold_everything_once_within_the_budget(
    lengths: Array, budget: int, multiple: int, padded: bool
) -> None:
    parts = pack_by_length(lengths, budget, multiple, padded)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    assert len(parts) % multiple == 0
    costs = [len(p) * lengths[p].max() if padded else lengths[p].sum() for p in parts if len(p)]
    assert max(costs) <= budget
    whole = len(pack_by_length(lengths, budget, 1, padded))
    assert len(parts) == -(-whole // multiple) * multiple


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_the_padding_fraction_is_that_of_the_batches(layout: str) -> None:
    config = BatchConfig(sequences=4, micro_tokens=24, layout=layout)  # type: ignore[arg-type]
    data = FinetuningBatches(encoded(), config, 0, 0, 0, 1)[0]
    slots = sum(batch["input_ids"].numel() for batch in data.micro_batches)
    assert data.padding_fraction == pytest.approx(1 - data.counts["tokens"] / slots)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("step", [0, 1, 2, 9])
def test_a_step_is_the_same_however_it_is_carried_out(layout: str, step: int) -> None:
    data = encoded()
    expected = None
    for processes, micro_tokens in [(1, 1000), (1, 12), (2, 20), (3, 12)]:
        config = BatchConfig(sequences=10, micro_tokens=micro_tokens, layout=layout)  # type: ignore[arg-type]
        shares = [FinetuningBatches(data, config, 0, 5, p, processes)[step] for p in range(processes)]
        assert len({len(share.micro_batches) for share in shares}) == 1
        assert all((s.counts, s.digest) == (shares[0].counts, shares[0].digest) for s in shares)
        seen = sorted(sequence for share in shares for m in share.micro_batches for sequence in _sequences(m))
        expected = expected or (seen, shares[0].digest)
        assert (seen, shares[0].digest) == expected
        assert len(seen) == shares[0].counts["sequences"] == shares[0].counts["classification"] == 10
        assert sum(len(ids) for ids, _ in seen) == shares[0].counts["tokens"]


def _sequences(batch: dict[str, torch.Tensor | int]) -> list[tuple[list[int], int]]:
    """Ids and label of each sequence in a micro-batch; the dummies are left out."""
    ids, labels = batch["input_ids"], batch["labels"]
    assert isinstance(ids, torch.Tensor) and isinstance(labels, torch.Tensor)
    if "sequence_offsets" in batch:
        offsets = batch["sequence_offsets"]
        assert isinstance(offsets, torch.Tensor)
        rows = [ids[a:b].tolist() for a, b in pairwise(offsets.tolist())]
    else:
        mask = batch["attention_mask"]
        assert isinstance(mask, torch.Tensor)
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    return [(row, label) for row, label in zip(rows, labels.tolist(), strict=True) if label != -100]


def test_each_epoch_has_every_text_once_in_an_order_of_its_own() -> None:
    batches = FinetuningBatches(encoded(20), BatchConfig(sequences=5), 0, 1, 0, 1)
    epochs = [
        np.concatenate([batches.examples(step) for step in range(4 * e, 4 * e + 4)]).tolist() for e in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]
    across = FinetuningBatches(encoded(20), BatchConfig(sequences=30), 0, 1, 0, 1).examples(0).tolist()
    assert across == epochs[0] + epochs[1][:10]
    other_seed = FinetuningBatches(encoded(20), BatchConfig(sequences=20), 0, 2, 0, 1).examples(0).tolist()
    assert other_seed != epochs[0]


@pytest.mark.parametrize(
    ("labels", "targets"),
    [
        (Labels(("a", "b", "c")), np.arange(23) % 3),
        (Labels(("a", "b"), "multi_label"), (np.arange(46).reshape(23, 2) % 3 == 0).astype(np.float32)),
        (Labels(("score",), "regression"), np.linspace(-1, 1, 23, dtype=np.float32)),
    ],
)
def test_losses_agree_over_layouts_and_dummies_count_for_nothing(labels: Labels, targets: Array) -> None:
    data = encoded(targets=targets)
    config = EncoderConfig(
        vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_positions=16
    )
    model = models.build(config, "SequenceClassifier", labels).eval()
    losses = {}
    for layout in ("packed", "padded"):
        batch = BatchConfig(sequences=23, micro_tokens=40, layout=layout)
        shares = [FinetuningBatches(data, batch, 0, 0, p, 3)[0] for p in range(3)]
        one = [model(**m).losses["classification"] for share in shares for m in share.micro_batches]
        losses[layout] = torch.stack([loss.sum for loss in one]).sum()
        assert sum(int(loss.count) for loss in one) == shares[0].counts["classification"] == targets.size
    torch.testing.assert_close(losses["packed"], losses["padded"])
    nothing = np.array([], dtype=np.int64)
    dummy = model(**data.labelled_batch(nothing, "padded", 0)).losses["classification"]
    assert dummy.sum == 0 and dummy.count == 0


def test_evaluation_answers_every_text_in_its_place_over_uneven_shards() -> None:
    data = encoded()
    config = EncoderConfig(
        vocab_size=50, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, max_positions=16
    )
    model = models.build(config, "SequenceClassifier", Labels(("a", "b", "c"))).eval()
    assert isinstance(model, models.SequenceClassifier)
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor(row)[None]).logits for row in data.ids])
        for processes in (1, 3):
            parts = [outputs_of(model, data, 0, 25, p, processes) for p in range(processes)]
            torch.testing.assert_close(torch.stack(parts).sum(0), alone, atol=1e-5, rtol=1e-5)
            numbers = {len(list(evaluation_batches(data, 0, 25, p, processes))) for p in range(processes)}
            assert len(numbers) == 1


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
    backend = tokenizers.Tokenizer(WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    return Tokenizer(backend)


def test_pairs_are_marked_and_cut_at_the_longer_text(letters: Tokenizer) -> None:
    split = Split(["a b c d e f", "a"], ["g h", "h"], np.array([0, 1]))
    data = KINDS["single_label"].encode(split, letters, BatchConfig(max_length=8))
    rows = [letters.tokens(row) for row in data.ids]
    assert rows == [
        ["[CLS]", "a", "b", "c", "[SEP]", "g", "h", "[SEP]"],
        ["[CLS]", "a", "[SEP]", "h", "[SEP]"],
    ]
    assert data.segments.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1]
    assert data.cut == 1 and data.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "pair", "values", "rows"),
    [
        ("a b c d e f g h i j", None, {"long_texts": "cut"}, ["a b c d e f"]),
        ("a b c d e f g h i j", None, {"long_texts": "head_tail"}, ["a f g h i j"]),
        ("a b c d e f g h i j", None, {"long_texts": "windows"}, ["a b c d e f", "e f g h i j"]),
        (
            "a b c",
            "d e f g h",
            {"long_texts": "windows"},
            ["a b c | d e", "a b c | e f", "a b c | f g", "a b c | g h"],
        ),
        ("a b c", "d e f g h", {"long_texts": "head_tail"}, ["a b c | g h"]),
        ("a b", None, {"long_texts": "windows"}, ["a b"]),
    ],
)
def test_long_texts_are_cut_or_read_in_windows(
    letters: Tokenizer, text: str, pair: str | None, values: Any, rows: list[str]
) -> None:
    split = Split([text, "p"], None if pair is None else [pair, "p"], np.array([1, 0]))
    data = KINDS["single_label"].encode(split, letters, BatchConfig(max_length=8, overlap=2, **values))
    found = [" ".join(letters.tokens(row)) for row in data.ids]
    assert found[:-1] == [f"[CLS] {row.replace('|', '[SEP]')} [SEP]" for row in rows]
    assert data.example_of.tolist() == [0] * len(rows) + [1]
    assert data.labels.tolist() == [1] * len(rows) + [0]
    assert (data.windowed, data.cut) == (len(rows) > 1, text != "a b" and len(rows) == 1)
    outputs = torch.arange(2 * len(data.ids), dtype=torch.float32).reshape(-1, 2)
    expected = torch.stack([outputs[: len(rows)].mean(0), outputs[-1]])
    torch.testing.assert_close(pooled(data, outputs), expected)


def test_a_first_text_that_leaves_no_room_is_named(letters: Tokenizer) -> None:
    split = Split(["a b c d e"], ["f g h"], np.array([0]), ["q.csv, line 2"])
    with pytest.raises(
        UserError, match=r"q\.csv, line 2: its first text has 5 tokens, .*; batch\.max_length=8 is too"
    ):
        KINDS["single_label"].encode(split, letters, BatchConfig(max_length=8, long_texts="windows"))
