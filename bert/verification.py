"""`bert verify`: whether a checkpoint gives the same outputs in transformers and here, padded and packed, reloaded.

Everything is computed in float64, where the order of a sum makes almost no difference: more than 1e-4 is a mistake.
ModernBERT differs by up to about 1e-6, because transformers rotates queries and keys in float32.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert import checkpoint, huggingface
from bert.checkpoint import embedding_files
from bert.checkpoint import folder as checkpoint_folder
from bert.data.batch import Layout, token_batch
from bert.data.ragged import Ragged
from bert.inference.common import evaluating, tokenize_and_cut
from bert.model.models import Model, MultipleChoice
from bert.tokenizer import Tokenizer

Batch = dict[str, Any]
Outputs = dict[str, Tensor]
OUTPUTS = (
    *("last_hidden_state", "pooler_output", "prediction_logits", "seq_relationship_logits"),
    *("logits", "start_logits", "end_logits"),
)
LONGEST = 512
"""tokens of the longest text"""
_SENTENCES = (
    "The committee met on Tuesday to discuss the new bridge, which had been closed since the flood in March.",
    "Why?",
    "She opened the letter, read it twice, and put it back into its envelope without a word.",
    "Water boils at 100 °C at sea level; on a mountain 3,000 m high it boils at about 90 °C.",
    "Ein Mann geht über die Straße. Où est la gare? これは日本語の文です。 Это предложение по-русски.",
)
TEXTS = (*_SENTENCES, " ".join(_SENTENCES * 20))


@dataclass(frozen=True)
class Comparison:
    """The largest absolute difference between two ways to compute the same output."""

    ways: str
    output: str
    difference: float


@dataclass
class VerifyReport:
    """What `verify` found. `str(report)` is for people to read."""

    folder: Path
    tolerance: float
    comparisons: list[Comparison] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """what is wrong apart from the numbers"""
    notes: list[str] = field(default_factory=list)
    """what could not be compared, and why"""

    @property
    def greatest(self) -> float:
        """The largest of all differences."""
        return max(comparison.difference for comparison in self.comparisons)

    @property
    def passed(self) -> bool:
        return not self.failures and self.greatest <= self.tolerance

    def compare(self, ways: str, one: Outputs, other: Outputs) -> None:
        """Add the largest difference of each output that both have."""
        for name in [name for name in OUTPUTS if name in one and name in other]:
            difference = (one[name] - other[name]).abs().nan_to_num(nan=torch.inf).max()
            self.comparisons.append(Comparison(ways, name, float(difference)))

    def __str__(self) -> str:
        width = max(len(comparison.ways) for comparison in self.comparisons)
        lines = [f"{self.folder}: greatest differences in float64"]
        lines += [
            f"  {each.ways:{width}}  {each.difference:8.1e}  {each.output}" for each in self.comparisons
        ]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  failed: {failure}" for failure in self.failures]
        verdict = "passed" if self.passed else "FAILED"
        lines.append(f"{verdict}: the greatest is {self.greatest:.1e}, the tolerance {self.tolerance:.0e}")
        return "\n".join(lines)


def verify(path: str | os.PathLike[str], tolerance: float = 1e-4) -> VerifyReport:
    """Compare the outputs of a checkpoint, or of a run's, on real text.

    Three comparisons: transformers with ours, if transformers has such an encoder; packed with padded; and before
    with after saving and loading. The two tokenizers must give the same ids.
    """
    folder = checkpoint.resolve(path)
    report = VerifyReport(folder, tolerance)
    tokenizer = Tokenizer.load(folder)
    model = checkpoint.load(folder, dtype=torch.float64)
    tokenizer.check_fits(model.config.vocab_size, model.config.pad_token_id, str(folder))
    rows, _ = tokenize_and_cut(TEXTS, tokenizer, min(model.config.max_positions, LONGEST))
    groups = np.arange(len(TEXTS) - 1), np.array([len(TEXTS) - 1])
    batches = [text_batch(rows.take(group), "padded", model) for group in groups]
    ours = _outputs(model, batches)
    report.compare("packed and padded", _outputs(model, [text_batch(rows, "packed", model)]), ours)
    with tempfile.TemporaryDirectory() as aside, quiet():
        checkpoint.save(model, Path(aside) / "again", tokenizer)
        again = checkpoint.load(Path(aside) / "again")
    report.compare("saved and loaded again", _outputs(again, batches), ours)
    _compare_with_transformers(report, model, tokenizer, batches, ours)
    return report


def _compare_with_transformers(
    report: VerifyReport, model: Model, tokenizer: Tokenizer, batches: list[Batch], ours: Outputs
) -> None:
    import transformers

    config = json.loads((report.folder / checkpoint_folder.CONFIG).read_text(encoding="utf-8"))
    if config["model_type"] == huggingface.NATIVE:
        why = huggingface.obstacles(model.config, model.architecture)
        report.notes.append(f"transformers has no such encoder ({why}); only bert.load reads this folder")
        return
    model_class = getattr(transformers, (config.get("architectures") or ["AutoModel"])[0])
    try:
        with quiet():
            theirs, loading = model_class.from_pretrained(
                report.folder, dtype=torch.float64, output_loading_info=True
            )
            their_ids = transformers.AutoTokenizer.from_pretrained(report.folder)(list(TEXTS))["input_ids"]
    except Exception as error:  # of many kinds, for a quantized model, or files of wrong content
        why = " ".join(str(error).split()) or type(error).__name__
        report.failures.append(f"transformers cannot load this folder ({why})")
        return
    if isinstance(model, MultipleChoice):  # theirs takes (examples, choices, tokens)
        batches = [{name: value[:, None] for name, value in batch.items()} for batch in batches]
    with torch.inference_mode():
        found = _gather(theirs.eval(), batches, huggingface.FAMILIES[config["model_type"]].outputs)
    if "prediction_logits" in ours and "logits" in found:
        found["prediction_logits"] = found.pop("logits")
        report.notes.append("transformers has no place for the pair head; it is read by bert.load only")
    report.compare("transformers and ours", found, ours)
    missing = [name for name in loading["missing_keys"] if "pooler" not in name or "pooler_output" in ours]
    if missing:
        report.failures.append(f"transformers misses weights: {', '.join(sorted(missing))}")
    if loading["unexpected_keys"]:
        report.notes.append(f"transformers leaves out {', '.join(sorted(loading['unexpected_keys']))}")
    report.notes += embedding_files.differences(report.folder, model.config)
    if their_ids != tokenizer.encode_batch(TEXTS):
        report.failures.append("transformers' tokenizer gives other ids than ours")


def text_batch(rows: Ragged, layout: Layout, model: Model) -> Batch:
    """The batch of some texts; if the model has segments, B begins in the middle of each text."""
    columns = {"token_type_ids": rows.positions >= rows.repeat(rows.lengths // 2)}
    pad_id = model.config.pad_token_id
    return token_batch(rows, layout, pad_id, columns if model.config.num_segments > 1 else {})


def _outputs(model: Model, batches: list[Batch]) -> Outputs:
    with evaluating(model):
        return _gather(model, batches)


def _gather(model: Any, batches: list[Batch], renamed: Mapping[str, str] | None = None) -> Outputs:
    """Each output over all real tokens (T, …) or sequences (N, …) of the batches; `renamed` gives their names ours."""
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, value in dict(model(**batch)).items():
            name = (renamed or {}).get(name, name)
            if name in OUTPUTS and value is not None:
                real = batch["attention_mask"].bool() if "attention_mask" in batch else None
                # A pooled output (N, D) may be as wide as the texts are long.
                has_tokens = value.dim() == 3 or name in ("start_logits", "end_logits")
                value = value[real] if has_tokens and real is not None else value
                parts.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in parts.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the messages about loading; the report has what matters."""
    from transformers.utils import logging as theirs

    ours = logging.getLogger("bert")
    level, their_level, bar = ours.level, theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    ours.setLevel(logging.ERROR)
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        ours.setLevel(level)
        theirs.set_verbosity(their_level)
        if bar:
            theirs.enable_progress_bar()
