"""Checks of the prepared text: its size, its lengths, its scripts, and how well the vocabulary fits it."""

import unicodedata
from collections import Counter
from typing import Any

import numpy as np

from bert.data.ragged import evenly_spread
from bert.tokenizer import Tokenizer
from pretrain.data.store import Store

SAMPLED_DOCUMENTS = 2_000
SAMPLED_SENTENCES = 4_000_000
SCRIPTS = {"Cjk": "Han", "Fullwidth": "Latin"}
"""scripts whose letters have another first word in their Unicode name"""


def sizes(store: Store, heldout: Store) -> dict[str, Any]:
    """The numbers of documents, sentences and tokens, and which documents were skipped or dropped."""
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


def lengths(store: Store, most: int | None = None) -> dict[str, dict[str, int]]:
    """The lengths of sentences and of documents in tokens, as histograms; of at most `most` of each, spread over the
    split."""

    def some(ends: np.ndarray) -> np.ndarray:
        chosen = evenly_spread(len(ends) - 1, most or len(ends) - 1)
        return ends[chosen + 1] - ends[chosen]

    ends = store.sentence_offsets[store.document_offsets]
    return {"sentences": histogram(some(store.sentence_offsets)), "documents": histogram(some(ends))}


def histogram(values: np.ndarray) -> dict[str, int]:
    """Counts by powers of two: "1", "2-3", "4-7", …"""
    counts = np.bincount(np.frexp(values)[1]).tolist()
    names = ["0", "1"] + [f"{1 << bits}-{(2 << bits) - 1}" for bits in range(1, len(counts))]
    return {name: count for name, count in zip(names, counts) if count}


def scripts(store: Store, tokenizer: Tokenizer) -> dict[str, float]:
    """Share of each script among the letters of a sample of documents, largest first."""
    counts: Counter[str] = Counter()
    for number in evenly_spread(store.num_documents, SAMPLED_DOCUMENTS).tolist():
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


def vocabulary(
    store: Store, heldout: Store, tokenizer: Tokenizer, most: int = SAMPLED_SENTENCES
) -> dict[str, Any]:
    """How well the vocabulary fits the text, and the loss of guessing by token frequency alone."""
    counts, unseen = (split.count_tokens(tokenizer.vocab_size, most) for split in (store, heldout))
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


def _share(counts: np.ndarray, index: int) -> float:
    return round(float(counts[index] / max(counts.sum(), 1)), 5)
