"""Shapes of micro-batches, phases of a run, and batches of the held-out split."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bert.config import Length
from bert.errors import UserError
from pretrain.data.dataset import HeldOutBatches, PretrainingBatches
from pretrain.data.objective import BatchConfig, MaskProbRamp, ObjectiveConfig, PhaseConfig
from pretrain.data.plan import phase_at, phases_of
from tests.stores import write_documents

OBJECTIVE = ObjectiveConfig()
BATCH = BatchConfig(sequences=24, micro_tokens=300, max_length=64)


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
        assert data.padding_fraction == pytest.approx(1 - data.counts["tokens"] / (2 * used))
        shapes |= {repr({k: getattr(v, "shape", v) for k, v in m.items()}) for m in data.micro_batches}
    assert len(shapes) == 1


def test_static_shapes_are_static_where_nothing_is_masked(make: Any) -> None:
    """A ramp may begin at 0: no token is chosen, and the shape is that of all other steps."""
    batch = BatchConfig(sequences=8, micro_tokens=1024, max_length=64, static_shapes=True)
    ramp = MaskProbRamp(start=0.0, end=0.15, steps=Length(1000))
    data = make(objective=ObjectiveConfig(mask_prob=ramp), batch=batch)
    first, last = data[0], data[999]
    assert first.counts["mlm"] == 0 < last.counts["mlm"]
    shapes = [{k: getattr(v, "shape", v) for k, v in step.micro_batches[0].items()} for step in (first, last)]
    assert shapes[0] == shapes[1]


def test_waste_is_the_padding(make: Any) -> None:
    packed, padded = make()[0], make(batch=replace(BATCH, layout="padded"))[0]
    slots = sum(m["input_ids"].numel() for m in padded.micro_batches)
    assert packed.padding_fraction == 0
    assert (
        padded.padding_fraction == pytest.approx(1 - padded.counts["tokens"] / slots)
        and padded.padding_fraction > 0.01
    )


def test_processes_without_examples_get_dummies(sequences_of: Any, step_of: Any) -> None:
    for layout in ("packed", "padded"):
        batch = replace(BATCH, sequences=2, layout=layout)
        shares = step_of(0, 4, batch=batch)
        assert len(sequences_of(shares)) == 2
        empty = shares[-1].micro_batches[0]
        assert empty["input_ids"].tolist() in ([0], [[0]])
        labels = empty["masked_labels"] if layout == "packed" else empty["labels"]
        assert not (labels != -100).any() and empty["next_sentence_label"].tolist() == [-100]


PHASES = (
    PhaseConfig(Length(0.5), max_length=32),
    PhaseConfig(Length(20), sequences=8),
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
    held = make(batch=batch, total_steps=None)  # until the run knows its steps, the first phase lasts
    assert len(held.phases) == 1 and held[70].counts["sequences"] == 24


def test_a_source_that_is_told_the_length_of_the_run_is_that_of_a_run_of_this_length(make: Any) -> None:
    """A run by the clock: ramps stay at their start and the first phase holds until it knows its steps."""
    ramp = ObjectiveConfig(mask_prob=MaskProbRamp(0.4, 0.1, Length("80%")))
    parts = {"batch": replace(BATCH, phases=PHASES), "objective": ramp}
    known, unknown = make(**parts, total_steps=100), make(**parts, total_steps=None)
    assert [unknown.mask_prob(step) for step in (0, 30, 99)] == [0.4] * 3
    told = unknown.lasting(100)
    for step in (0, 30, 49, 50, 70, 99):
        assert told[step].digest == known[step].digest == pickle.loads(pickle.dumps(told))[step].digest
        assert told[step].counts == known[step].counts
    assert unknown[0].digest == known[0].digest and unknown[30].digest != known[30].digest
    assert told.lasting(100) is told and told.lasting(50)[30].digest != told[30].digest


def test_mistakes_in_the_batch() -> None:
    with pytest.raises(ValueError, match=r"micro_tokens: 100 does not hold"):
        BatchConfig(micro_tokens=100, max_length=128)
    with pytest.raises(ValueError, match=r"micro_tokens: 300 does not hold"):
        BatchConfig(micro_tokens=300, max_length=128, phases=(PhaseConfig(max_length=512),))
    with pytest.raises(ValueError, match=r"phases: each phase but the last"):
        BatchConfig(phases=(PhaseConfig(), PhaseConfig()))
    with pytest.raises(ValueError, match=r"phases: those before the last take the whole run"):
        BatchConfig(
            phases=(PhaseConfig(steps=Length("60%")), PhaseConfig(steps=Length("40%")), PhaseConfig())
        )


def test_another_tokenizer_is_refused(make: Any, tmp_path: Path, tokenizer_file: Path) -> None:
    store = write_documents(tmp_path / "store", [[[5, 6]]] * 3, tokenizer_digest="another", vocab_size=8_000)
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        PretrainingBatches(store, tokenizer_file, OBJECTIVE, BATCH, 1, 10)[0]


@pytest.fixture
def evaluation(store_folder: Path, tokenizer_file: Path) -> Any:
    def make(process: int = 0, processes: int = 1, sequences: int = 0, **options: Any) -> HeldOutBatches:
        objective, batch = ObjectiveConfig(**options), replace(BATCH, sequences=16)
        return HeldOutBatches(
            store_folder, tokenizer_file, objective, batch, process, processes, sequences=sequences
        )

    return make


def test_evaluation_passes_once_over_the_heldout_split(evaluation: Any, sequences_of: Any) -> None:
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
    batches = HeldOutBatches(one, tokenizer_file, OBJECTIVE, BATCH)
    assert len(batches) == 1 and batches[0].counts.keys() == {"mlm", "tokens", "sequences"}
    assert len(HeldOutBatches(none, tokenizer_file, OBJECTIVE, BATCH)) == 0
