"""Step k of a run is the same whatever it is launched on."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert.errors import UserError
from bert.tokenizer import Tokenizer
from bert.training.batch import StepData
from bert.training.loader import batches as loaded
from pretrain.data.collator import EvaluationBatches, StepBatches
from pretrain.data.objective import BatchConfig, MaskProbRamp, ObjectiveConfig, PhaseConfig
from pretrain.data.phases import phase_at, phases_of
from pretrain.data.store import write_documents

OBJECTIVE = ObjectiveConfig()
BATCH = BatchConfig(sequences=24, micro_tokens=300, max_length=64)
Sequence = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], int | None]


@pytest.fixture(scope="session")
def make(store_folder: Path, tokenizer_file: Path, tokenizer: Tokenizer) -> Any:
    """Step batches over the store of numbers."""

    def make(
        objective: ObjectiveConfig = OBJECTIVE, batch: BatchConfig = BATCH, **options: Any
    ) -> StepBatches:
        arguments = {"seed": 1, "total_steps": 1000} | options
        batches = StepBatches(store_folder, tokenizer_file, objective, batch, **arguments)
        batches.tokenizer = tokenizer  # opened once for all
        return batches

    return make


def unpacked(batch: Any) -> list[Sequence]:
    """Of each sequence: ids, segments, (place, label) of chosen tokens, label of the pair."""
    masked = [
        (p, n) for p, n in zip(batch["masked_positions"].tolist(), batch["masked_labels"].tolist()) if n >= 0
    ]
    bounds = batch["sequence_offsets"].tolist()
    pairs = batch["next_sentence_label"].tolist() if "next_sentence_label" in batch else [None] * len(bounds)
    found = []
    for first, last, pair in zip(bounds, bounds[1:], pairs):
        if last > first and not (last - first == 1 and pair in (-100, None)):  # no padding, no dummy
            assert batch["position_ids"][first:last].tolist() == list(range(last - first))
            assert last - first <= batch["max_sequence_length"]
            ids, segments = (
                tuple(batch[key][first:last].tolist()) for key in ("input_ids", "token_type_ids")
            )
            chosen = tuple((place - first, label) for place, label in masked if first <= place < last)
            found.append((ids, segments, chosen, pair))
    return found


def unpadded(batch: Any) -> list[Sequence]:
    found = []
    for row in range(len(batch["input_ids"])):
        length = int(batch["attention_mask"][row].sum())
        assert batch["attention_mask"][row, :length].all()
        ids, segments = (tuple(batch[key][row, :length].tolist()) for key in ("input_ids", "token_type_ids"))
        chosen = tuple(
            (place, label) for place, label in enumerate(batch["labels"][row].tolist()) if label >= 0
        )
        pair = batch["next_sentence_label"][row].item() if "next_sentence_label" in batch else None
        if length > 1:
            found.append((ids, segments, chosen, pair))
    return found


def sequences_of(shares: list[StepData]) -> list[Sequence]:
    """All sequences of a step, over the processes, in a fixed order."""
    batches = [batch for share in shares for batch in share.micro_batches]
    return sorted(
        (s for batch in batches for s in (unpadded if batch["input_ids"].ndim == 2 else unpacked)(batch)),
        key=repr,
    )


def step_of(make: Any, step: int, num_processes: int = 1, **options: Any) -> list[StepData]:
    return [
        make(process_index=process, num_processes=num_processes, **options)[step]
        for process in range(num_processes)
    ]


OBJECTIVES = {
    "next_sentence": OBJECTIVE,
    "bernoulli": ObjectiveConfig(quota="bernoulli"),
    "whole_word": ObjectiveConfig(masking="whole_word", pairing="sentence_order"),
    "span": ObjectiveConfig(masking="span", pairing="none", mask_prob=MaskProbRamp(0.4, 0.1)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("step", [0, 3, 151])
def test_a_step_is_the_same_however_it_is_divided(make: Any, name: str, step: int) -> None:
    """Over processes, budgets, layouts and shapes: the same sequences, masks, counts and digest."""
    objective = OBJECTIVES[name]
    first = step_of(make, step, objective=objective)
    expected = sequences_of(first)
    assert len(expected) == BATCH.sequences
    batches = [
        replace(BATCH, micro_tokens=micro_tokens, layout=layout, static_shapes=static)
        for micro_tokens, layout, static in [
            (64, "packed", False),
            (1000, "padded", True),
            (4000, "packed", True),
        ]
    ]
    for processes, batch in [(2, BATCH), (4, batches[0]), (8, batches[1]), (1, batches[2]), (2, batches[1])]:
        shares = step_of(make, step, processes, objective=objective, batch=batch)
        assert sequences_of(shares) == expected
        assert {share.digest for share in shares} == {first[0].digest}
        assert all(share.counts == first[0].counts for share in shares)
        assert len({len(share.micro_batches) for share in shares}) == 1
        assert all(
            m["input_ids"].numel() <= batch.micro_tokens for share in shares for m in share.micro_batches
        )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_counts_are_those_of_the_whole_step(make: Any, name: str) -> None:
    for step in range(5):
        shares = step_of(make, step, 3, objective=OBJECTIVES[name])
        sequences = sequences_of(shares)
        counts = shares[0].counts
        assert counts["sequences"] == len(sequences)
        assert counts["tokens"] == sum(len(ids) for ids, *_ in sequences)
        assert counts["mlm"] == sum(len(chosen) for _, _, chosen, _ in sequences)
        assert counts.get("nsp", 0) == sum(pair in (0, 1) for *_, pair in sequences)
        assert ("nsp" in counts) == (OBJECTIVES[name].pairing != "none")


def test_tokens_are_those_of_the_store(make: Any) -> None:
    """[CLS] A [SEP] B [SEP] with the plan's spans: token n of this store has the id 5 + n."""
    batches = make(batch=replace(BATCH, layout="padded"))
    examples, (share,) = batches.examples(2), step_of(make, 2)
    expected = {}
    for a, a_length, b, b_length, label, _ in zip(*(column.tolist() for column in examples.columns())):
        ids = (2, *range(5 + a, 5 + a + a_length), 3, *range(5 + b, 5 + b + b_length), 3)
        expected[ids] = ((0,) * (a_length + 2) + (1,) * (b_length + 1), label)
    for ids, segments, chosen, pair in sequences_of([share]):
        whole = list(ids)
        for place, label in chosen:
            whole[place] = label
        assert expected.pop(tuple(whole)) == (segments, pair)
    assert not expected


@settings(max_examples=10)
@given(st.integers(0, 300), st.sampled_from([1, 2, 5]))
def test_every_step_follows_the_one_before(make: Any, step: int, count: int) -> None:
    """No example is left out or comes twice, over the ends of epochs; the order of reading is free."""
    batches = make()
    numbers = [batches.examples(one).number for one in reversed(range(step, step + count))]
    assert np.array_equal(np.sort(np.concatenate(numbers)), 24 * step + np.arange(24 * count))


def test_a_run_goes_on_as_if_never_stopped(make: Any) -> None:
    """One made anew, and one sent to another process, give at step 40 what one gives that read 0 … 39."""
    batches = make()
    untouched = [batches[step] for step in range(43)][40:]
    for again in (make(), pickle.loads(pickle.dumps(batches))):
        resumed = [again[step] for step in range(40, 43)]
        assert [sequences_of([a]) for a in resumed] == [sequences_of([b]) for b in untouched]
        assert [a.digest for a in resumed] == [b.digest for b in untouched]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(make: Any, workers: int) -> None:
    batches = make()
    steps = loaded(batches, start=7, num_workers=workers, pin_memory=False)
    for step in range(7, 11):
        data, _ = next(steps)
        assert data.digest == batches[step].digest
        for mine, theirs in zip(batches[step].micro_batches, data.micro_batches, strict=True):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(torch.as_tensor(mine[key]), torch.as_tensor(theirs[key])) for key in mine)


def test_digests_tell_batches_apart(make: Any, tmp_path: Path, tokenizer_file: Path) -> None:
    known = make()[0].digest
    others = [make()[1], make(seed=2)[0], make(objective=replace(OBJECTIVE, mask_prob=0.2))[0]]
    others += [
        make(objective=replace(OBJECTIVE, random_token_prob=0.2))[0],
        make(batch=replace(BATCH, sequences=25))[0],
    ]
    other_text = write_documents(tmp_path / "store", [[[9, 8, 7]] * 5] * 30, vocab_size=8_000)
    others.append(StepBatches(other_text, tokenizer_file, OBJECTIVE, BATCH, 1, 1000)[0])
    assert len({known, *(other.digest for other in others)}) == 7


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("pairing", ["next_sentence", "none"])
def test_static_shapes_are_static(make: Any, layout: Any, pairing: Any) -> None:
    batch = BatchConfig(sequences=64, micro_tokens=1024, max_length=64, layout=layout, static_shapes=True)
    batches = make(objective=ObjectiveConfig(pairing=pairing), batch=batch, num_processes=2)
    shapes = set()
    for step in range(20):
        data = batches[step]
        used = sum(m["input_ids"].numel() for m in data.micro_batches)
        assert used == len(data.micro_batches) * 1024
        assert data.waste == pytest.approx(1 - data.counts["tokens"] / (2 * used))
        shapes |= {repr({k: getattr(v, "shape", v) for k, v in m.items()}) for m in data.micro_batches}
    assert len(shapes) == 1


def test_waste_is_the_padding(make: Any) -> None:
    packed, padded = make()[0], make(batch=replace(BATCH, layout="padded"))[0]
    slots = sum(m["input_ids"].numel() for m in padded.micro_batches)
    assert packed.waste == 0
    assert padded.waste == pytest.approx(1 - padded.counts["tokens"] / slots) and padded.waste > 0.01


def test_processes_without_examples_get_dummies(make: Any) -> None:
    for layout in ("packed", "padded"):
        batch = replace(BATCH, sequences=2, layout=layout)
        shares = step_of(make, 0, 4, batch=batch)
        assert len(sequences_of(shares)) == 2
        empty = shares[-1].micro_batches[0]
        assert empty["input_ids"].tolist() in ([0], [[0]])
        labels = empty["masked_labels"] if layout == "packed" else empty["labels"]
        assert not (labels != -100).any() and empty["next_sentence_label"].tolist() == [-100]


PHASES = (
    PhaseConfig(steps=0.5, max_length=32),
    PhaseConfig(steps=20, sequences=8),
    PhaseConfig(sequences=16),
)


def test_phases_change_length_and_size(make: Any) -> None:
    batch = replace(BATCH, phases=PHASES)
    phases = phases_of(batch, 100)
    assert [phase.first_step for phase in phases] == [0, 50, 70]
    assert [phase.stream for phase in phases] == [0, 1, 1]
    assert phases[2].first_of(71) == 20 * 8 + 16  # goes on where the phase of the same length stopped
    assert [phase_at(phases, step).sequences for step in (0, 49, 50, 69, 70, 500)] == [24, 24, 8, 8, 16, 16]
    batches = make(batch=batch, total_steps=100)
    assert batches[49].counts["sequences"] == 24 and batches.examples(49).lengths.max() == 32
    assert batches[50].counts["sequences"] == 8 and batches.examples(50).lengths.max() == 64
    with pytest.raises(UserError, match=r"batch\.phases\.steps: a share"):
        make(batch=batch, total_steps=None)


def test_mistakes_in_the_batch() -> None:
    with pytest.raises(ValueError, match=r"micro_tokens: 100 does not hold"):
        BatchConfig(micro_tokens=100, max_length=128)
    with pytest.raises(ValueError, match=r"micro_tokens: 300 does not hold"):
        BatchConfig(micro_tokens=300, max_length=128, phases=(PhaseConfig(max_length=512),))
    with pytest.raises(ValueError, match=r"phases: each phase but the last"):
        BatchConfig(phases=(PhaseConfig(), PhaseConfig()))


def test_another_tokenizer_is_refused(make: Any, tmp_path: Path, tokenizer_file: Path) -> None:
    store = write_documents(tmp_path / "store", [[[5, 6]]] * 3, tokenizer_digest="another", vocab_size=8_000)
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        StepBatches(store, tokenizer_file, OBJECTIVE, BATCH, 1, 10)[0]


@pytest.fixture
def evaluation(store_folder: Path, tokenizer_file: Path) -> Any:
    def make(process: int = 0, processes: int = 1, sequences: int = 0, **options: Any) -> EvaluationBatches:
        objective, batch = ObjectiveConfig(**options), replace(BATCH, sequences=16)
        return EvaluationBatches(
            store_folder, tokenizer_file, objective, batch, process, processes, sequences=sequences
        )

    return make


def test_evaluation_passes_once_over_the_heldout_split(evaluation: Any) -> None:
    """The same sequences for any number of processes and any objective; the last batch is short."""
    whole = evaluation()
    assert whole.num_examples % 16 and len(whole) == -(-whole.num_examples // 16)
    expected = sequences_of([whole[number] for number in range(len(whole))])
    assert len(expected) == whole.num_examples
    shards = [
        evaluation(process, 3, masking="span", mask_prob=0.4, random_token_prob=0.0) for process in range(3)
    ]
    assert {len(shard) for shard in shards} == {len(whole)}
    assert sequences_of([shard[number] for shard in shards for number in range(len(shard))]) == expected
    masked = sum(len(chosen) for _, _, chosen, _ in expected)
    assert masked == pytest.approx(0.15 * sum(len(ids) for ids, *_ in expected), rel=0.06)


def test_evaluation_may_be_limited(evaluation: Any) -> None:
    batches = evaluation(sequences=20)
    assert len(batches) == 2
    assert [batches[number].counts["sequences"] for number in range(2)] == [16, 4]


def test_evaluation_of_little_text(tmp_path: Path, tokenizer_file: Path) -> None:
    """One document has no other to take a random sentence from; no document gives no batch."""
    text = [[[5, 6, 7]] * 4] * 3
    one = write_documents(tmp_path / "one", text, heldout=text[:1], vocab_size=8_000)
    none = write_documents(tmp_path / "none", text, vocab_size=8_000)
    batches = EvaluationBatches(one, tokenizer_file, OBJECTIVE, BATCH)
    assert len(batches) == 1 and batches[0].counts.keys() == {"mlm", "tokens", "sequences"}
    assert len(EvaluationBatches(none, tokenizer_file, OBJECTIVE, BATCH)) == 0
