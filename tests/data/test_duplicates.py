"""Documents that repeat others are found over all shards, in however many passes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert.config import from_dict
from pretrain.config import PretrainConfig
from pretrain.corpus import duplicates
from pretrain.corpus.duplicates import exact_duplicates, near_duplicates, signature
from pretrain.data.store import Store
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer

keys = st.lists(st.lists(st.sampled_from([0, 1, 2**63, 2**64 - 1, 12345, 2**40]), max_size=6), max_size=5)


@given(keys, st.sampled_from([1, 2, 1 << 23]))
def test_all_but_the_first_are_duplicates(shards, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_AT_ONCE", at_once)
        found = exact_duplicates([np.array(shard, np.uint64) for shard in shards])
    flat = [key for shard in shards for key in shard]
    assert found.tolist() == [n for n, key in enumerate(flat) if key in flat[:n]]


def document(seed: int, words: int = 400) -> list[str]:
    return [" ".join(f"w{n}" for n in np.random.default_rng(seed).integers(0, 5000, words))]


def test_near_duplicates_are_found():
    pytest.importorskip("datasketch")
    texts = [document(n) for n in range(30)]
    changed = texts[7][0].split()
    changed[100] = "other"
    texts += [[" ".join(changed)], document(99)]
    signatures = np.stack([signature(text) for text in texts])
    assert near_duplicates([signatures[:10], signatures[10:]], 0.8).tolist() == [30]
    similarity = np.mean(signature(["a b c d e f g h"]) == signature(["a b c d e f g x"]))
    assert abs(similarity - 3 / 5) < 0.15  # 3 of 5 five-word sequences in common


def test_a_held_out_document_is_not_trained_on_in_another_form(tmp_path):
    pytest.importorskip("datasketch")
    texts = [document(n)[0] for n in range(40)]
    near = [f"{text} end" for text in texts]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts + near)
    (tmp_path / "corpus.jsonl").write_text(rows)
    values = {"run_dir": str(tmp_path / "run"), "corpus.files": [str(tmp_path / "corpus.jsonl")]}
    values |= {"corpus.heldout_share": 0.3, "prepare.deduplicate": "near", "prepare.workers": 1}
    config = from_dict(PretrainConfig, values | {"tokenizer.vocab_size": 200})
    ensure_tokenizer(config)
    path = ensure_store(config)
    train, heldout = Store(path), Store(path, "heldout")
    assert train.num_documents + heldout.num_documents == 40
    assert train.metadata["counts"]["repeated"] == 40
    assert heldout.num_documents > 12  # of each pair the held-out form stays
