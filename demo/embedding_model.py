"""An embedding model from an encoder and pairs of texts: python demo/embedding_model.py RUN PAIRS OUTPUT

Fine-tunes with sentence-transformers' own trainer: the vectors of two texts that belong together come near each other,
those of the other texts in the batch go away (MultipleNegativesRankingLoss; Henderson et al. 2017). Before and after,
it measures how often the partner of a held-out text is found among all held-out partners.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bert.config import NonNegativeInt, PositiveFloat, PositiveInt, help_text, load
from bert.data.records import FileConfig, RowFile
from bert.errors import UserError, run_command

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

USAGE = """\
usage: python demo/embedding_model.py RUN PAIRS OUTPUT [key=value ...]

RUN is the folder of a run or of a checkpoint. PAIRS is a file (jsonl, csv, tsv or parquet) whose rows have two texts
that belong together: a title and its abstract, a question and its answer. OUTPUT is the folder of the embedding model.
"""
MEASURES = {
    "accuracy@1": "is the first of all",
    "accuracy@10": "is one of the first 10",
    "mrr@10": "mean of 1 / place",
}
SAME = 1e-4
"""difference of two vectors that are the same"""

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class EmbeddingConfig(FileConfig):
    first: str = "title"
    """column of the text that searches"""
    second: str = "abstract"
    """column of the text that is found"""
    heldout: PositiveInt = 1000
    """pairs that are held out, to measure; a hash of the first text decides which"""
    max_pairs: PositiveInt | None = None
    """train on at most this many pairs, in the order of the file"""
    epochs: PositiveFloat = 1
    """passes over the pairs"""
    batch: PositiveInt = 64
    """pairs of a step; the other texts of a batch are what a text must be told from, so more is better"""
    learning_rate: PositiveFloat = 5e-5
    """peak learning rate, after a warm-up of a tenth of the steps"""
    max_length: PositiveInt = 128
    """tokens after which texts are cut while training and measuring"""
    seed: NonNegativeInt = 0
    """seed of the order of the pairs and of dropout"""


def read_pairs(file: str, config: EmbeddingConfig) -> tuple[Pairs, Pairs]:
    """The pairs to train on, and the held-out ones; a first text occurs only once, and in one of the two."""
    hint = "first=NAME and second=NAME name the columns"
    pairs: dict[str, str] = {}
    for row in RowFile(file, config):
        pairs.setdefault(row.text(config.first, hint), row.text(config.second, hint))
    if len(pairs) < 2 * config.heldout:
        raise UserError(
            f"{file}: has {len(pairs)} pairs, too few to hold out {config.heldout}; give heldout=N"
        )
    by_hash = sorted(pairs, key=lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest())
    held_out = frozenset(by_hash[: config.heldout])
    train = [pair for pair in pairs.items() if pair[0] not in held_out]
    return train[: config.max_pairs], [pair for pair in pairs.items() if pair[0] in held_out]


def measure(model: "SentenceTransformer", pairs: Pairs) -> dict[str, float]:
    """How well the second text of each pair is found by the first one, among the second texts of all, by cosine."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    numbers = [str(number) for number in range(len(pairs))]
    evaluator = InformationRetrievalEvaluator(
        queries=dict(zip(numbers, (first for first, _ in pairs), strict=True)),
        corpus=dict(zip(numbers, (second for _, second in pairs), strict=True)),
        relevant_docs={number: {number} for number in numbers},
        write_csv=False,
    )
    found = evaluator(model)
    return {name: found[f"cosine_{name}"] for name in MEASURES}


def fine_tune(model: "SentenceTransformer", pairs: Pairs, config: EmbeddingConfig) -> None:
    """Train the model in place with sentence-transformers' trainer."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import BatchSamplers
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    first, second = (list(texts) for texts in zip(*pairs, strict=True))
    with TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            learning_rate=config.learning_rate,
            warmup_steps=0.1,
            seed=config.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=not sys.stderr.isatty(),
        )
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"anchor": first, "positive": second}),
            loss=MultipleNegativesRankingLoss(model),
        ).train()


def carry_out(run: str, file: str, folder: Path, config: EmbeddingConfig) -> dict[str, dict[str, float]]:
    """Measure, fine-tune, measure again and save; the figures before and after."""
    from sentence_transformers import SentenceTransformer

    from bert.checkpoint.folder import resolve

    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds other things; give another folder for the embedding model")
    train, held_out = read_pairs(file, config)
    model = SentenceTransformer(str(resolve(run)), local_files_only=True)
    longest = model.max_seq_length
    model.max_seq_length = min(config.max_length, longest)
    before = measure(model, held_out)
    fine_tune(model, train, config)
    after = measure(model, held_out)
    model.max_seq_length = longest
    model.save_pretrained(str(folder))
    check(model, folder, [first for first, _ in held_out[:20]])
    return {"before": before, "after": after}


def check(model: "SentenceTransformer", folder: Path, texts: Sequence[str]) -> None:
    """UserError if `bert.embed` gives other vectors than sentence-transformers, from the folder that was saved."""
    import numpy as np
    from sentence_transformers.sentence_transformer.modules import Normalize

    import bert

    normalise = isinstance(model[-1], Normalize)
    ours = bert.embed(folder, texts, normalise=normalise)
    difference = float(np.abs(ours - model.encode(list(texts))).max())
    asked = ", normalise=True" if normalise else ""
    print(f"bert.embed(…{asked}) and sentence-transformers differ by at most {difference:.1e}")
    if difference > SAME:
        raise UserError(
            f"{folder}: gives other vectors in bert.embed; is its pooling the mean of all tokens?"
        )


def show(figures: dict[str, dict[str, float]], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(f"the partner, among {count:,} texts", *figures, title="held-out pairs")
    for name, words in MEASURES.items():
        table.add_row(f"{words} ({name})", *(f"{values[name]:.3f}" for values in figures.values()))
    Console().print(table)


def main(argv: Sequence[str]) -> None:
    if "--help" in argv or "-h" in argv:
        print(help_text(EmbeddingConfig, USAGE))
        return
    words = [word for word in argv if "=" not in word]
    if len(words) != 3:
        raise UserError(f"three words are needed; {USAGE.splitlines()[0]} (--help lists the keys)")
    config: Any = load(EmbeddingConfig, None, [word for word in argv if "=" in word])
    show(carry_out(words[0], words[1], Path(words[2]), config), config.heldout)
    print(f"the embedding model is {words[2]}; to try it: bert embed {words[2]} 'a text'")


if __name__ == "__main__":
    sys.exit(run_command(main))
