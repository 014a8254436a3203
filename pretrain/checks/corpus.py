"""What a run trains on, in figures: RUN/corpus.json, which its report shows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert.files import write_text
from bert.tokenizer import Tokenizer
from pretrain.checks import batches as batch_checks
from pretrain.checks import text
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.store import Store

CORPUS = "corpus.json"
COUNTED_SENTENCES = 200_000


def describe(
    store: Path, tokenizer: Tokenizer, batches: PretrainingBatches, names: Sequence[str | None] = ()
) -> dict[str, Any]:
    """Sizes, sources, lengths, scripts, how the vocabulary fits, and the examples of an epoch. Large stores are
    sampled, so that this takes a few seconds at most. `names` are those of the sources, where they have one."""
    train, heldout = Store(store), Store(store, "heldout")
    return {
        "text": text.sizes(train, heldout),
        "sources": sources(train, names),
        "lengths": text.lengths(train, COUNTED_SENTENCES),
        "scripts": text.scripts(train, tokenizer),
        "vocabulary": text.vocabulary(train, heldout, tokenizer, COUNTED_SENTENCES),
        "examples": batch_checks.examples(batches),
    }


def sources(store: Store, names: Sequence[str | None] = ()) -> list[dict[str, Any]]:
    """For each source its name (that of `names`, or else its files), its weight, its documents and its tokens."""
    ends = np.asarray(store.sentence_offsets[store.document_offsets])
    described = store.metadata["sources"]
    documents = np.bincount(store.document_source, minlength=len(described))
    tokens = np.bincount(store.document_source, np.diff(ends), minlength=len(described))
    return [
        {
            "name": (names[number] if number < len(names) else None) or source["name"],
            "weight": source["weight"],
            "documents": int(documents[number]),
            "tokens": int(tokens[number]),
        }
        for number, source in enumerate(described)
    ]


def write(
    run_dir: Path,
    store: Path,
    tokenizer: Tokenizer,
    batches: PretrainingBatches,
    names: Sequence[str | None] = (),
) -> None:
    """Write RUN/corpus.json, see `describe`."""
    figures = describe(store, tokenizer, batches, names)
    write_text(run_dir / CORPUS, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
