"""Checks of the prepared text: how much there is, how long, in which scripts, how known to the vocabulary."""

import unicodedata
from collections import Counter
from typing import Any

import numpy as np

from bert.tokenizer import Tokenizer
from pretrain.data.store import Store

SAMPLED_DOCUMENTS = 2_000
SAMPLED_SENTENCES, AT_A_TIME = 4_000_000, 100_000
SCRIPTS = {"Cjk": "Han", "Fullwidth": "Latin"}  # where Unicode's names of letters begin otherwise


def sizes(store: Store, heldout: Store) -> dict[str, Any]:
    """What the store holds, and what became of the documents on the way into it."""
    disk = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    return {
        "documents": store.num_documents,
        "sentences": store.num_sentences,
        "tokens": store.num_tokens,
        "heldout_documents": heldout.num_documents,
        "heldout_tokens": heldout.num_tokens,
        "sentences_per_document": round(store.num_sentences / max(store.num_documents, 1), 2),
        "tokens_per_sentence": round(store.num_tokens / max(store.num_sentences, 1), 2),
        "disk_bytes": disk,
        "preparation": store.metadata["counts"],
    }


def lengths(store: Store) -> dict[str, dict[str, int]]:
    """How many sentences and documents there are of each length in tokens."""
    ends = store.sentence_offsets[store.document_offsets]
    return {"sentences": histogram(np.diff(store.sentence_offsets)), "documents": histogram(np.diff(ends))}


def histogram(values: np.ndarray) -> dict[str, int]:
    """Counts by powers of two: "1", "2-3", "4-7", …"""
    counts = np.bincount(np.frexp(values)[1]).tolist()
    names = ["0", "1"] + [f"{1 << bits}-{(2 << bits) - 1}" for bits in range(1, len(counts))]
    return {name: count for name, count in zip(names, counts) if count}


def scripts(store: Store, tokenizer: Tokenizer) -> dict[str, float]:
    """Share of each script among the letters of a sample of documents, largest first."""
    counts: Counter[str] = Counter()
    for number in sample(store.num_documents, SAMPLED_DOCUMENTS).tolist():
        start, end = store.sentence_offsets[store.document_offsets[number : number + 2]]
        ids = store.gather(np.array([start]), np.array([min(end - start, 512)]))
        counts.update(tokenizer.decode(ids))
    by_script: Counter[str] = Counter()
    for character, count in counts.items():
        if character.isalpha():
            name = unicodedata.name(character, "Unknown").split()[0].capitalize()
            by_script[SCRIPTS.get(name, name)] += count
    shares = {script: round(count / by_script.total(), 4) for script, count in by_script.most_common(8)}
    return {script: part for script, part in shares.items() if part}


def vocabulary(store: Store, heldout: Store, tokenizer: Tokenizer) -> dict[str, Any]:
    """How the vocabulary fits the text, and what guessing by the frequency of tokens alone would reach."""
    counts, unseen = token_counts(store, tokenizer), token_counts(heldout, tokenizer)
    unseen = unseen if unseen.any() else counts
    normal = tokenizer.normal_ids
    common, asked = counts[normal], unseen[normal]  # special tokens are never asked for
    log_probs = np.log((common + 1) / (common + 1).sum())
    begins_word = ~tokenizer.continues_word[normal]
    return {
        "size": tokenizer.vocab_size,
        "unused_share": round(float((common == 0).mean()), 4),
        "unknown_share": 0.0 if tokenizer.unk_id is None else _share(counts, tokenizer.unk_id),
        "tokens_per_word": round(float(common.sum() / max(common[begins_word].sum(), 1)), 3),
        "unigram_loss": round(float(-(asked * log_probs).sum() / max(asked.sum(), 1)), 4),
        "unigram_accuracy": _share(asked, int(common.argmax())),
    }


def token_counts(store: Store, tokenizer: Tokenizer) -> np.ndarray:
    """int64 (vocabulary,): how often each token occurs in the split, or in millions of its sentences."""
    counts, offsets = np.zeros(tokenizer.vocab_size, np.int64), store.sentence_offsets
    chosen = sample(store.num_sentences, SAMPLED_SENTENCES)
    for few in np.split(chosen, range(AT_A_TIME, len(chosen), AT_A_TIME)):
        tokens = store.gather(offsets[few], offsets[few + 1] - offsets[few])
        counts += np.bincount(tokens, minlength=tokenizer.vocab_size)
    return counts


def sample(size: int, number: int) -> np.ndarray:
    """int64: up to `number` numbers below `size`, evenly spread."""
    return np.unique(np.linspace(0, size - 1, min(size, number)).astype(np.int64))


def _share(counts: np.ndarray, index: int) -> float:
    return round(float(counts[index] / max(counts.sum(), 1)), 5)
