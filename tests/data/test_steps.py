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

from bert.config import from_dict
from bert.training.loader import batches as loaded
from pretrain import train
from pretrain.config import PretrainConfig
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.examples import Blocks
from pretrain.data.objective import BatchConfig, MaskProbRamp, ObjectiveConfig
from tests.stores import write_documents

OBJECTIVE = ObjectiveConfig()
BATCH = BatchConfig(sequences=24, micro_tokens=300, max_length=64)

OBJECTIVES = {
    "next_sentence": OBJECTIVE,
    "bernoulli": ObjectiveConfig(quota="bernoulli"),
    "whole_word": ObjectiveConfig(masking="whole_word", pairing="sentence_order"),
    "span": ObjectiveConfig(masking="span", pairing="none", mask_prob=MaskProbRamp(0.4, 0.1)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("step", [0, 3, 151])
def test_a_step_is_the_same_however_it_is_divided(
    name: str, step: int, sequences_of: Any, step_of: Any
) -> None:
    """Over processes, budgets, layouts and shapes: the same sequences, masks, counts and digest."""
    objective = OBJECTIVES[name]
    first = step_of(step, objective=objective)
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
        shares = step_of(step, processes, objective=objective, batch=batch)
        assert sequences_of(shares) == expected
        assert {share.digest for share in shares} == {first[0].digest}
        assert all(share.counts == first[0].counts for share in shares)
        assert len({len(share.micro_batches) for share in shares}) == 1
        assert all(
            m["input_ids"].numel() <= batch.micro_tokens for share in shares for m in share.micro_batches
        )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_counts_are_those_of_the_whole_step(name: str, sequences_of: Any, step_of: Any) -> None:
    for step in range(5):
        shares = step_of(step, 3, objective=OBJECTIVES[name])
        sequences = sequences_of(shares)
        counts = shares[0].counts
        assert counts["sequences"] == len(sequences)
        assert counts["tokens"] == sum(len(ids) for ids, *_ in sequences)
        assert counts["mlm"] == sum(len(chosen) for _, _, chosen, _ in sequences)
        assert counts.get("nsp", 0) == sum(pair in (0, 1) for *_, pair in sequences)
        assert ("nsp" in counts) == (OBJECTIVES[name].pairing != "none")


@settings(max_examples=20, deadline=None)
@given(
    share=st.floats(0, 1),
    mask_prob=st.sampled_from([0.0, 0.15, 0.6, 1.0]),
    pairing=st.sampled_from(["next_sentence", "none"]),
    masking=st.sampled_from(["token", "whole_word", "span"]),
    seed=st.integers(0, 9),
)
def test_counts_hold_where_little_can_be_chosen(
    share: float,
    mask_prob: float,
    pairing: Any,
    masking: Any,
    seed: int,
    tokenizer_file: Path,
    tokenizer: Any,
    sequences_of: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Text of which any share is unknown: what is counted beforehand is what is chosen."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(6):
        lengths = rng.integers(1, 40, rng.integers(1, 6))
        unknown = share if rng.random() < 0.7 else 1.0
        documents.append(
            [np.where(rng.random(n) < unknown, 1, rng.integers(5, 8000, n)).tolist() for n in lengths]
        )
    folder = tmp_path_factory.mktemp("unknown")
    write_documents(folder, documents, vocab_size=8000, special_ids=tokenizer.special_ids, shard_documents=4)
    objective = ObjectiveConfig(pairing, masking=masking, mask_prob=mask_prob)
    batch = BatchConfig(sequences=8, micro_tokens=100, max_length=24)
    shares = [PretrainingBatches(folder, tokenizer_file, objective, batch, 1, 100, p, 2)[0] for p in range(2)]
    chosen = [chosen for _, _, chosen, _ in sequences_of(shares)]
    assert shares[0].counts["mlm"] == shares[1].counts["mlm"] == sum(map(len, chosen))
    assert all(label not in tokenizer.special_ids for row in chosen for _, label in row)


def test_tokens_are_those_of_the_store(make: Any, sequences_of: Any, step_of: Any) -> None:
    """[CLS] A [SEP] B [SEP] with the plan's spans: token n of this store has the id 5 + n."""
    batches = make(batch=replace(BATCH, layout="padded"))
    examples, (share,) = batches.examples(2), step_of(2)
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


def test_a_run_goes_on_as_if_never_stopped(make: Any, sequences_of: Any) -> None:
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
    others.append(PretrainingBatches(other_text, tokenizer_file, OBJECTIVE, BATCH, 1, 1000)[0])
    assert len({known, *(other.digest for other in others)}) == 7


def test_an_epoch_is_counted_once_for_all_processes(
    tmp_path: Path, store_folder: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length of a run of epochs and its plan share the counts in the run's folder; so does a resumed run."""
    values = {"run_dir": str(tmp_path), "training.epochs": 2, "training.steps": None, "batch.sequences": 8}
    config = from_dict(PretrainConfig, values)
    counted, count = [], Blocks.count
    monkeypatch.setattr(Blocks, "count", lambda self, *block: counted.append(block) or count(self, *block))
    for process in (0, 1, 0):  # two processes, and one of the resumed run
        steps = train.run_steps(config, store_folder, tokenizer_file)
        assert steps and steps > 2
        run = config.objective, config.batch, config.seed, steps, process, 2
        folder = train.plan_folder(config)
        PretrainingBatches(store_folder, tokenizer_file, *run, folder=folder).examples(0)
        assert counted == [(0, 0)]
