"""Every sentence is seen in each epoch, in examples whose segments each come from one document."""

import multiprocessing
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert.errors import UserError
from pretrain.data.examples import Block, Examples
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.plan import Counts, Plan

corpora = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=30), min_size=2, max_size=20)
objectives = st.builds(
    ObjectiveConfig,
    pairing=st.sampled_from(["next_sentence", "sentence_order", "none"]),
    balance_pairs=st.booleans(),
    short_prob=st.sampled_from([0.0, 0.1, 1.0]),
)
PAIRS = ObjectiveConfig()
SINGLES = ObjectiveConfig(pairing="none")


def epoch_of(plan: Plan, epoch: int = 0) -> Examples:
    first = sum(plan.num_examples(before) for before in range(epoch))
    return plan.take(first, plan.num_examples(epoch))


def spans(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """First and last token of every A and B."""
    b = examples.b_length > 0
    starts = np.concatenate([examples.a_start, examples.b_start[b]])
    lengths = np.concatenate([examples.a_length, examples.b_length[b]])
    assert (lengths > 0).all()
    return starts, starts + lengths - 1


@given(corpora, objectives, st.integers(8, 128), st.integers(0, 2**64), st.sampled_from([5, 1 << 18]))
def test_examples_keep_the_limit_and_their_documents(
    number_store: Any, lengths: Any, objective: ObjectiveConfig, max_length: int, seed: int, block_size: int
) -> None:
    store = number_store(lengths)
    examples = epoch_of(Plan(store, objective, max_length, seed, block_size=block_size))
    assert (examples.lengths <= max_length).all()
    firsts, lasts = spans(examples)
    assert np.array_equal(store.document_of(firsts), store.document_of(lasts))
    pairs = examples[examples.b_length > 0]
    same = store.document_of(pairs.a_start) == store.document_of(pairs.b_start)
    after = pairs.b_start >= pairs.a_start + pairs.a_length
    if objective.pairing == "next_sentence":
        assert np.array_equal(same, pairs.label == 0) and after[pairs.label == 0].all()
        assert len(pairs) == len(examples)
    elif objective.pairing == "sentence_order":
        assert same.all() and np.array_equal(after, pairs.label == 0)
    else:
        assert not len(pairs) and (examples.label == -100).all()


@given(corpora, objectives, st.integers(0, 100), st.sampled_from([5, 1 << 18]))
def test_every_sentence_is_in_a_chunk(
    number_store: Any, lengths: Any, objective: ObjectiveConfig, seed: int, block_size: int
) -> None:
    """Once an epoch, as A or as the true B, before the cut to the limit; with balanced pairs some twice."""
    store = number_store(lengths)
    blocks = Plan(store, objective, 64, seed, block_size=block_size).blocks
    seen: Counter[int] = Counter()
    for number in range(blocks.num_blocks):
        block = Block(blocks, 0, number)
        if objective.pairing == "none":
            start, length = block._singles()
            seen.update(
                token for a, n in zip(start, length) for token in block.token_numbers(np.arange(a, a + n))
            )
            continue
        chunks = block._chunks()
        ends = np.where(chunks.random, chunks.split, chunks.end)
        tokens = (np.arange(a, b) for a, b in zip(block.offsets[chunks.first], block.offsets[ends]))
        seen.update(token for span in tokens for token in block.token_numbers(span))
    assert sorted(seen) == list(range(store.num_tokens))
    if not objective.balance_pairs:
        assert set(seen.values()) == {1}


def test_full_sentences_are_kept_whole(number_store: Any, documents: Any) -> None:
    """Without pairs every token is trained on, and sentences are only cut where they exceed the limit."""
    store = number_store([*documents, [5, 300, 5]])
    examples = epoch_of(Plan(store, SINGLES, 64, seed=0))
    firsts, lasts = spans(examples)
    order = np.argsort(firsts)
    assert np.array_equal(firsts[order][1:], lasts[order][:-1] + 1)
    assert examples.a_length.sum() == store.num_tokens
    inside_a_sentence = ~np.isin(firsts, store.sentence_offsets)
    sentence = np.searchsorted(store.sentence_offsets, firsts, side="right") - 1
    assert set(np.diff(store.sentence_offsets)[sentence[inside_a_sentence]]) == {300}
    assert inside_a_sentence.sum() in (4, 5)


@pytest.mark.parametrize("block_size", [40, 1 << 18])
def test_any_place_gives_the_same_examples(number_store: Any, documents: Any, block_size: int) -> None:
    """Read from the middle, in any pieces, over the ends of blocks and epochs."""
    store = number_store(documents)
    whole = Plan(store, PAIRS, 64, seed=3, block_size=block_size).take(0, 4000)
    assert Plan(store, PAIRS, 64, seed=3).num_examples(0) < 2000
    plan = Plan(store, PAIRS, 64, seed=3, block_size=block_size)
    for first in (3990, 17, 1935):
        for name, column in vars(plan.take(first, 10)).items():
            assert np.array_equal(column, getattr(whole, name)[first : first + 10])


def test_epochs_seeds_and_streams_differ(number_store: Any, documents: Any) -> None:
    store = number_store(documents)

    def pairs(**changes: Any) -> set[tuple[int, ...]]:
        epoch = changes.pop("epoch", 0)
        plan = Plan(store, PAIRS, 64, **({"seed": 3} | changes))
        return set(zip(*(column.tolist() for column in epoch_of(plan, epoch).columns()[:4])))

    first = pairs()
    for other in (pairs(epoch=1), pairs(seed=4), pairs(stream=1)):
        assert len(first & other) < 0.2 * len(first)


def test_examples_are_shuffled(number_store: Any, documents: Any) -> None:
    """Examples that follow each other are about as far apart as in a random order."""
    store = number_store(documents)
    for objective in (PAIRS, SINGLES):
        places = epoch_of(Plan(store, objective, 64, seed=0)).a_start
        assert np.abs(np.diff(places)).mean() == pytest.approx(store.num_tokens / 3, rel=0.1)


def test_blocks_draw_from_the_whole_corpus(number_store: Any, documents: Any) -> None:
    store = number_store(documents)
    plan = Plan(store, PAIRS, 64, seed=0, block_size=200)
    assert plan.blocks.num_blocks > 3
    starts = plan.blocks.examples(0, 1).a_start
    assert np.ptp(starts) > 0.9 * store.num_tokens
    assert starts.mean() == pytest.approx(store.num_tokens / 2, rel=0.2)


def test_long_documents_are_no_exception(number_store: Any) -> None:
    """A document of 5,000 sentences is walked in stretches, and still seen whole."""
    store = number_store([[7] * 5000, [9] * 4])
    blocks = Plan(store, PAIRS, 32, seed=0).blocks
    assert len(blocks.pieces) == 21
    chunks = Block(blocks, 0, 0)._chunks()
    assert np.where(chunks.random, chunks.split, chunks.end).sum() - chunks.first.sum() == 5004
    examples = blocks.examples(0, 0)
    random = examples[examples.label == 1]
    assert (store.document_of(random.a_start) != store.document_of(random.b_start)).all()


@given(
    corpora, st.lists(st.integers(1, 4), min_size=20, max_size=20), st.integers(8, 64), st.integers(0, 2**64)
)
def test_random_segments_come_from_no_other_part_of_a_document(
    number_store: Any, lengths: Any, sizes: list[int], max_length: int, seed: int
) -> None:
    """Documents are stored in runs of parts; A and a random B are never from the same run."""
    bounds = np.minimum(np.cumsum([0, *sizes]), len(lengths))
    runs = np.stack([bounds[:-1], bounds[1:]], axis=1)
    runs = runs[np.diff(runs)[:, 0] > 1]
    store = number_store(lengths, parts=runs)
    if store.num_wholes < 2:
        with pytest.raises(UserError, match="holds one document"):
            Plan(store, PAIRS, max_length, seed)
        return
    examples = epoch_of(Plan(store, PAIRS, max_length, seed))
    a, b = (
        np.searchsorted(bounds, store.document_of(start), side="right")
        for start in (examples.a_start, examples.b_start)
    )
    assert np.array_equal(a != b, examples.label == 1)


def test_random_segments_are_from_sources_as_often_as_these_are_seen(number_store: Any) -> None:
    """So the source of B does not tell whether it is random. Equal weights leave all documents the same chance."""
    sources = [0] * 600 + [1] * 300 + [2] * 100
    for weights, expected in [((1.0, 1.0, 1.0), (0.6, 0.3, 0.1)), ((0.5, 2.0, 3.0), (0.25, 0.5, 0.25))]:
        store = number_store([[5] * 8] * 1000, source_weights=list(weights), sources=sources)
        examples = epoch_of(Plan(store, PAIRS, 24, seed=1))
        for label in (0, 1):
            of_b = store.document_source[store.document_of(examples.b_start[examples.label == label])]
            assert np.bincount(of_b) / len(of_b) == pytest.approx(expected, abs=0.035)


def test_weights_say_how_often_sources_are_seen(number_store: Any) -> None:
    lengths = [[10] for _ in range(3000)]
    sources = [n % 3 for n in range(3000)]
    store = number_store(lengths, source_weights=[1.0, 2.5, 0.25], sources=sources)
    plan = Plan(store, SINGLES, 32, seed=0)
    for epoch in (0, 1):
        seen = Counter((epoch_of(plan, epoch).a_start // 10 % 3).tolist())
        assert seen[0] == 1000
        assert seen[1] == pytest.approx(2500, rel=0.03) and seen[2] == pytest.approx(250, rel=0.15)
    rare = Plan(number_store(lengths[:20], source_weights=[0.1]), SINGLES, 32, seed=0, block_size=1)
    assert rare.blocks.num_blocks == 20 and len(rare.take(0, 50)) == 50  # most blocks are empty
    heldout = number_store(lengths, source_weights=[1.0, 2.5, 0.25], sources=sources, split="heldout")
    assert Plan(heldout, SINGLES, 32, seed=0).num_examples(0) == 3000


def test_counts_are_kept_in_a_file(number_store: Any, documents: Any, tmp_path: Path) -> None:
    store = number_store(documents)

    def plan(objective: ObjectiveConfig = PAIRS, seed: int = 0) -> Plan:
        return Plan(store, objective, 64, seed, folder=tmp_path, block_size=500)

    first = plan().take(9000, 10).columns()
    (file,) = tmp_path.glob("*.counts")
    known = file.read_bytes()
    again = plan()
    again.counts.count = None  # type: ignore[assignment]  # nothing is counted anew
    assert np.array_equal(again.take(9000, 10).columns(), first)
    file.write_bytes(known[:6] + bytes(2) + known[8:-3])  # lost in a crash: counted again
    assert np.array_equal(plan().take(9000, 10).columns(), first)
    assert file.read_bytes() == known
    plan(seed=1).num_examples(0), plan(SINGLES).num_examples(0)
    assert len(list(tmp_path.glob("*.counts"))) == 3


def test_processes_that_begin_an_epoch_together_count_it_once(tmp_path: Path) -> None:
    file, log = tmp_path / "counts", tmp_path / "log"
    context = multiprocessing.get_context("fork")
    together = context.Barrier(4)

    def count(epoch: int, block: int) -> int:
        with log.open("a") as lines:
            lines.write(f"{epoch} {block}\n")
        time.sleep(0.02)
        return 10 * epoch + block

    def work() -> None:
        counts = Counts(count, num_blocks=5, file=file)
        together.wait()
        assert counts.block_starts(1).tolist() == [0, 10, 21, 33, 46, 60]

    processes = [context.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text().split("\n")[:-1] == [f"{epoch} {block}" for epoch in (0, 1) for block in range(5)]


def test_far_epochs_are_found_at_once(number_store: Any, tmp_path: Path) -> None:
    """With its counts at hand, an example of epoch 2,000 costs about as much as one of epoch 0."""
    store = number_store([[5, 5]] * 3)
    plan = Plan(store, SINGLES, 32, seed=0, folder=tmp_path)
    plan.take(6000, 1)
    began = time.process_time()
    assert plan.take(6001, 1).number == [6001]
    assert time.process_time() - began < 0.05


def test_too_little_text_is_refused(number_store: Any) -> None:
    with pytest.raises(UserError, match=r"another one.*pairing=none"):
        Plan(number_store([[5, 5]]), PAIRS, 64, seed=0)
    assert Plan(number_store([[5, 5]]), SINGLES, 64, seed=0).num_examples(0) == 1
    with pytest.raises(UserError, match=r"100 epochs in a row have no example; raise the weights"):
        Plan(number_store([[5, 5]], source_weights=[1e-9]), SINGLES, 64, seed=0).take(0, 1)
    with pytest.raises(UserError, match="heldout split holds no text"):
        Plan(number_store([], split="heldout"), SINGLES, 64, seed=0)
