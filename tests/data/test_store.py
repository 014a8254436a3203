"""The store gives back what was written, over any number of shards, and other tools read its files."""

import pickle

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert.errors import UserError
from pretrain.corpus.shards import Shard, make_table, write_shard
from pretrain.data.store import Store
from tests.stores import write_documents

sentences = st.lists(st.integers(0, 999), max_size=6)
documents = st.lists(st.lists(sentences, max_size=5), max_size=12)


@settings(deadline=None, max_examples=40)
@given(documents=documents, shard_documents=st.integers(1, 5), data=st.data())
def test_what_was_written_is_read(documents, shard_documents, data, tmp_path_factory):
    path = write_documents(tmp_path_factory.mktemp("store"), documents, shard_documents=shard_documents)
    store = Store(path)
    assert [[list(s) for s in store.document(n)] for n in range(len(documents))] == documents
    flat = [token for document in documents for sentence in document for token in sentence]
    assert (store.num_documents, store.num_tokens) == (len(documents), len(flat))
    assert store.sentence_offsets.dtype == store.document_offsets.dtype == np.int64
    assert store.sentence_offsets[-1] == len(flat) and store.document_offsets[-1] == store.num_sentences

    spans = st.tuples(st.integers(0, max(0, len(documents) - 1)), st.integers(0, 30), st.integers(0, 30))
    starts, lengths, expected = [], [], []
    for document, skip, length in data.draw(st.lists(spans, max_size=8)) if documents else []:
        a, b = store.sentence_offsets[store.document_offsets[document : document + 2]]
        start = min(a + skip, b)
        length = min(length, b - start)
        starts.append(start), lengths.append(length), expected.extend(flat[start : start + length])
    assert store.gather(np.array(starts, np.int64), np.array(lengths, np.int64)).tolist() == expected


def test_splits_sources_and_types(tmp_path):
    path = write_documents(
        tmp_path,
        [[[1, 2]], [[3]], [[70000]]],
        heldout=[[[4], [5, 6]]],
        tokenizer_digest="abc",
        vocab_size=70001,
        sources=[0, 1, 1],
        source_weights=[1.0, 2.5],
        shard_documents=2,
    )
    train, heldout = pickle.loads(pickle.dumps(Store(path))), Store(path, "heldout")
    assert train.dtype == np.uint32 and train.tokenizer_digest == "abc"
    assert train.document_source.tolist() == [0, 1, 1] and train.source_weights == [1.0, 2.5]
    assert [s.tolist() for s in heldout.document(0)] == [[4], [5, 6]]
    assert (
        write_documents(tmp_path / "small", [[[1]]], vocab_size=1 << 16)
        and Store(tmp_path / "small").dtype == np.uint16
    )


def test_an_empty_split_opens(tmp_path):
    heldout = Store(write_documents(tmp_path, [[[1]]]), "heldout")
    assert heldout.num_documents == 0 and heldout.document_offsets.tolist() == [0]
    assert heldout.gather(np.array([0]), np.array([0])).tolist() == []


def test_datasets_reads_the_shards(tmp_path):
    path = write_documents(tmp_path / "store", [[[1, 2], [3]], [[4]]])
    shard = str(path / "train" / Store(path).shards[0].file)
    assert datasets.Dataset.from_file(shard)["sentences"][0] == [[1, 2], [3]]
    loaded = datasets.load_dataset(
        "arrow", data_files=shard, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["sentences"][1] == [[4]]


def test_reading_copies_nothing(tmp_path):
    store = Store(write_documents(tmp_path, [[list(range(1000))] * 50]))
    before = pa.total_allocated_bytes()
    tokens = store.tokens(0)
    assert len(tokens) == 50_000 and not tokens.flags.owndata
    assert pa.total_allocated_bytes() - before < 10_000
    assert isinstance(store.sentence_offsets, np.memmap)


def test_a_torn_shard_never_gets_its_name(tmp_path, monkeypatch):
    table = make_table(np.array([1], np.uint16), [0, 1], [0, 1], [0], [7], [7], {"source": "test"})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_shard(tmp_path / "a.arrow", table)
    assert not (tmp_path / "a.arrow").exists()
    monkeypatch.undo()
    assert write_shard(tmp_path / "a.arrow", table) == Shard("a.arrow", 1, 1, 1)


def test_an_unfinished_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="prepare"):
        Store(tmp_path)
