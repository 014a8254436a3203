"""A graph in ONNX Runtime beside the model in torch: how far apart they are, and how often they predict the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert.data.ragged import Ragged
from bert.inference.common import tokenize_and_cut
from bert.model.models import Model
from bert.tokenizer import Tokenizer
from bert.verification import LONGEST, text_batch

Batch = dict[str, Tensor]
BATCH_SIZES = (1, 2, 3, 8)
"""texts of a batch, in turn"""


@dataclass(frozen=True)
class Agreement:
    """How often a quantized graph predicts what torch predicts; of embeddings, how similar they are."""

    same: int = 0
    of: int = 0
    what: str = ""
    lowest_cosine: float | None = None

    def __str__(self) -> str:
        if self.lowest_cosine is not None:
            return f"lowest cosine of a text's embedding {self.lowest_cosine:.4f}"
        return f"{self.same} of {self.of} {self.what} predicted the same ({100 * self.same / self.of:.1f} %)"

    def record(self) -> dict[str, Any]:
        if self.lowest_cosine is not None:
            return {"lowest_cosine": self.lowest_cosine}
        return {"same": self.same, "of": self.of, "what": self.what}


@dataclass
class OnnxReport:
    """What was compared, and the largest difference of each output. `str(report)` is for people to read."""

    architecture: str
    inputs: list[str]
    batches: list[list[int]]
    """texts and tokens of each batch that was compared"""
    differences: dict[str, float]
    """output → the largest absolute difference to torch in float32"""
    agreements: dict[str, Agreement]
    size: int
    """bytes of the graph"""
    folder: Path = Path()
    quantized: dict[str, float] = field(default_factory=dict)
    """output → the largest absolute difference of the quantized graph to torch"""
    quantized_size: int = 0

    @property
    def greatest(self) -> float:
        return max(self.differences.values())

    def failure(self, tolerance: float) -> str:
        name = max(self.differences, key=lambda name: self.differences[name])
        difference = self.differences[name]
        return f"{name} of the graph differs from torch by {difference:.1e}, the tolerance is {tolerance:.0e}"

    def add_quantized(self, other: "OnnxReport") -> None:
        """Take over what was measured with the quantized graph."""
        self.quantized, self.agreements, self.quantized_size = other.differences, other.agreements, other.size

    def record(self) -> dict[str, Any]:
        """For JSON."""
        outputs: dict[str, dict[str, Any]] = {
            n: {"difference": value} for n, value in self.differences.items()
        }
        for name, value in self.quantized.items():
            agreement = self.agreements[name].record() if name in self.agreements else {}
            outputs[name]["int8"] = {"difference": value, **agreement}
        return {
            "architecture": self.architecture,
            "inputs": self.inputs,
            "outputs": outputs,
            "compared": {"texts": sum(rows for rows, _ in self.batches), "batches": self.batches},
            "bytes": self.quantized_size or self.size,
            "quantized": "int8" if self.quantized else None,
        }

    def __str__(self) -> str:
        shapes = ", ".join(f"{rows} × {width}" for rows, width in self.batches[:8])
        more = f" and {len(self.batches) - 8} more" if len(self.batches) > 8 else ""
        lines = [f"{self.folder}: {self.architecture} for ONNX Runtime, from {', '.join(self.inputs)}"]
        lines += [f"  compared with torch on batches of {shapes}{more} (texts × tokens)"]
        lines += [f"  {name}: greatest difference {value:.1e}" for name, value in self.differences.items()]
        for name, value in self.quantized.items():
            agreement = f"; {self.agreements[name]}" if name in self.agreements else ""
            lines += [f"  {name} in int8: greatest difference {value:.1e}{agreement}"]
        sizes = f"{self.size / 1e6:.1f} MB"
        sizes += f", in int8 {self.quantized_size / 1e6:.1f} MB" if self.quantized_size else ""
        return "\n".join([*lines, f"  onnx/model.onnx: {sizes}"])


def batches_of(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    model: Model,
    inputs: Sequence[str],
    sizes: Sequence[int] = BATCH_SIZES,
) -> list[Batch]:
    """Texts as padded batches, whose numbers of texts are `sizes` in turn, with what the graph takes."""
    rows, _ = tokenize_and_cut(texts, tokenizer, min(model.config.max_positions, LONGEST))
    batches, start = [], 0
    for size in cycle(sizes):
        if start >= len(rows):
            break
        some = rows.take(np.arange(start, min(start + size, len(rows))))
        batches.append(_inputs(some, model, inputs))
        start += size
    return batches


def _inputs(rows: Ragged, model: Model, inputs: Sequence[str]) -> Batch:
    batch = text_batch(rows, "padded", model)
    return {name: batch[name] for name in inputs}


def compare(graph: Path, theirs: Any, batches: Sequence[Batch], model: Model) -> OnnxReport:
    """Run the graph and transformers' model on the batches; `model` is ours and says what the outputs mean."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    ours: dict[str, list[np.ndarray]] = {name: [] for name in names}
    expected: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in batches:
        found = session.run(names, {name: tensor.numpy() for name, tensor in batch.items()})
        with torch.inference_mode():
            wanted = theirs(**batch)
        for name, value in zip(names, found, strict=True):
            ours[name] += _of_texts(value, batch)
            expected[name] += _of_texts(wanted[name].numpy(), batch)
    return OnnxReport(
        architecture=type(theirs).__name__,
        inputs=list(batches[0]),
        batches=[list(batch["input_ids"].shape) for batch in batches],
        differences={name: _largest(ours[name], expected[name]) for name in names},
        agreements=dict(_agreements(ours, expected, model)),
        size=sum(file.stat().st_size for file in graph.parent.glob(f"{graph.name}*")),
    )


def _of_texts(values: np.ndarray, batch: Batch) -> list[np.ndarray]:
    """An output of a batch, text by text, without the padding."""
    if values.shape[:2] != tuple(batch["input_ids"].shape):
        return list(values)
    return [row[: int(length)] for row, length in zip(values, batch["attention_mask"].sum(1), strict=True)]


def _largest(ones: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    differences = [np.abs(one - other).max() for one, other in zip(ones, others, strict=True)]
    return float(np.nan_to_num(differences, nan=np.inf).max())


def _agreements(
    ours: dict[str, list[np.ndarray]], expected: dict[str, list[np.ndarray]], model: Model
) -> Iterator[tuple[str, Agreement]]:
    labels = getattr(model, "labels", None)
    for name, values in ours.items():
        if name == "last_hidden_state":
            cosines = [_cosine(a.mean(0), b.mean(0)) for a, b in zip(values, expected[name], strict=True)]
            yield name, Agreement(lowest_cosine=min(cosines))
        elif name.endswith("logits") and (labels is None or labels.problem_type != "regression"):
            many = labels is not None and labels.problem_type == "multi_label"
            pairs = [
                (_chosen(a, many), _chosen(b, many)) for a, b in zip(values, expected[name], strict=True)
            ]
            same = sum(int((a == b).sum()) for a, b in pairs)
            what = "labels" if many else "tokens" if values[0].ndim == 2 else "texts"
            yield name, Agreement(same, sum(a.size for a, _ in pairs), what)


def _chosen(logits: np.ndarray, many: bool) -> np.ndarray:
    return logits > 0 if many else logits.argmax(-1)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))
