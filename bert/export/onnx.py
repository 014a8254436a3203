"""`bert export RUN onnx`: a checkpoint with its model as a graph for ONNX Runtime, checked against torch on real text.

The folder is a complete checkpoint, and in it

    onnx/model.onnx     the graph, for any number of texts of any length
    onnx/report.json    what was compared, and how far the graph is from torch

transformers makes the graph (`transformers.exporters`), so only what transformers can compute is exported.
"""

import contextlib
import importlib.util
import inspect
import io
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from bert import checkpoint, huggingface
from bert.checkpoint import folder as checkpoint_folder
from bert.checkpoint.manifest import MANIFEST
from bert.checkpoint.run import STATE, is_for_training_only
from bert.errors import RunFailed, UserError
from bert.export.comparison import Batch, OnnxReport, batches_of, compare
from bert.files import replacing
from bert.inference.common import open_source
from bert.model.models import Model
from bert.tokenizer import Tokenizer
from bert.verification import TEXTS, quiet

GRAPH = "model.onnx"
REPORT = "report.json"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LARGEST = 1_900_000_000
"""bytes of weights that are kept inside the file of the graph; protobuf holds no more than 2 GB"""

Quantize = Literal["int8"]


def export_onnx(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    quantize: Quantize | None = None,
    encoder_only: bool = False,
    tolerance: float = 1e-4,
    texts: Sequence[str] | None = None,
) -> OnnxReport:
    """Write the model of a checkpoint or run, with a graph for ONNX Runtime, into a new folder.

    `output` is the folder, by default `path` with -onnx behind its name. `encoder_only` leaves out the head, so that
    the graph gives embeddings. `quantize` int8 stores the weights of projections and embeddings in 8 bits. The graph is
    compared with torch on `texts`, or on some sentences of several languages. The folder appears only if float32
    outputs differ by at most `tolerance` (RunFailed otherwise). How often an int8 graph predicts the same is in the
    report.
    """
    _require_packages()
    folder = checkpoint.resolve(path)
    target = Path(output or _default_output(path, quantize))
    _check_target(target, folder)
    tokenizer = Tokenizer.load(folder)
    model = checkpoint.load(folder, "EncoderModel" if encoder_only else None, dtype=torch.float32)
    open_source((model, tokenizer))
    if (why := _obstacle(model)) is not None:
        raise UserError(f"{folder}: cannot be exported, {why}")
    with replacing(target, checkpoint_folder.OWNED) as aside:
        with quiet():
            _write_checkpoint(model, tokenizer, folder, aside)
            theirs = load_theirs(aside)
        batches = batches_of(texts or TEXTS, tokenizer, model, inputs_of(theirs, model))
        try:
            report = _write_graph(aside / checkpoint_folder.ONNX, theirs, batches, model, quantize, tolerance)
        except RunFailed as error:
            raise RunFailed(f"{folder}: {error}; nothing was written") from error
    report.folder = target
    return report


def _write_graph(
    folder: Path,
    theirs: Any,
    batches: Sequence[Batch],
    model: Model,
    quantize: Quantize | None,
    tolerance: float,
) -> OnnxReport:
    """Trace, compare, quantize and compare again; the folder then holds the graph and the report."""
    program = trace(theirs, batches, model.config.max_positions)
    graph = folder / GRAPH
    folder.mkdir()
    save(program, graph)
    report = compare(graph, theirs, batches, model)
    if report.greatest > tolerance:
        raise RunFailed(report.failure(tolerance))
    if quantize:
        save(quantized(program, batches[0]), graph)
        report.add_quantized(compare(graph, theirs, batches, model))
    packages = {name: version(name) for name in ("torch", "transformers", *PACKAGES)}
    record = json.dumps({**report.record(), "packages": packages}, indent=2)
    (folder / REPORT).write_text(record + "\n", encoding="utf-8")
    return report


def _require_packages() -> None:
    """UserError if a package is missing, or transformers is older than 5.23, whose exporters are called here."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"onnx: {', '.join(missing)} is not installed; pip install 'bert-pretraining[onnx]' brings what it needs"
        )
    try:
        from transformers.exporters.base import ExportedModel  # noqa: F401
    except ImportError:
        raise UserError(
            f"onnx: transformers {version('transformers')} is too old; pip install 'bert-pretraining[onnx]'"
        ) from None


def _default_output(path: str | os.PathLike[str], quantize: Quantize | None) -> str:
    return f"{os.fspath(path).rstrip('/')}-onnx" + (f"-{quantize}" if quantize else "")


def _check_target(target: Path, source: Path) -> None:
    if target.resolve() == source.resolve():
        raise UserError(f"output: {target} is the checkpoint itself; choose another folder")
    if source.resolve() in target.resolve().parents:
        raise UserError(f"output: {target} is inside of the checkpoint; choose another folder")
    if blocked := next(
        (path for path in target.resolve().parents if path.exists() and not path.is_dir()), None
    ):
        raise UserError(f"output: {blocked} is no folder; choose another one")
    if any((target / name).exists() for name in (STATE, MANIFEST)):
        raise UserError(
            f"output: {target} is a checkpoint of a training and is not replaced; choose another folder"
        )


def _obstacle(model: Model) -> str | None:
    """Why transformers has no such model; None if it has."""
    architecture = model.architecture
    if architecture == "MultipleChoice":
        return "because a text with choices is no row of tokens; encoder_only=true exports its encoder"
    if huggingface.family_of(model.config, architecture) is None:
        return f"transformers has no such encoder ({huggingface.obstacles(model.config, architecture)})"
    return None


def _write_checkpoint(model: Model, tokenizer: Tokenizer, source: Path, folder: Path) -> None:
    """A complete checkpoint, also if the source is sharded or lacks optional files; with its card and records."""
    checkpoint_folder.describe(model, folder, tokenizer)
    checkpoint_folder.write_weights(model, folder)
    for file in source.iterdir():
        owned = any(fnmatch(file.name, pattern) for pattern in checkpoint_folder.OWNED)
        left_out = owned or is_for_training_only(file.name) or file.name.startswith(".")
        if file.is_file() and not left_out and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def load_theirs(folder: Path) -> Any:
    """transformers' model of a folder, in float32."""
    import transformers

    name = json.loads((folder / checkpoint_folder.CONFIG).read_text(encoding="utf-8"))["architectures"][0]
    return getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()


def inputs_of(theirs: Any, model: Model) -> list[str]:
    """What the tokenizer of the folder gives, and the model takes."""
    given = ["input_ids", "attention_mask", *(["token_type_ids"] if model.config.num_segments > 1 else [])]
    return [name for name in given if name in inspect.signature(theirs.forward).parameters]


def trace(theirs: Any, batches: Sequence[Batch], longest: int) -> Any:
    """The graph (`onnx_ir.Model`) of a model, for any number of texts (batch) of any number of tokens (length)."""
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    # A dimension of size 1 would be traced as a constant.
    sample = {name: torch.cat([tensor, tensor]) for name, tensor in batches[0].items()}
    dims = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=2, max=longest)}
    config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(sample, dims))
    try:
        with _silent():
            program = OnnxExporter().export(theirs, dict(sample), config).program
    except Exception as error:  # torch.export and onnxscript have many of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunFailed(f"transformers could not export {type(theirs).__name__} ({reason})") from error
    _name_dimensions(program)
    return program


def _name_dimensions(program: Any) -> None:
    """Call the dynamic dimensions batch and length, instead of torch's s18 and s41."""
    import onnx_ir

    first = program.graph.inputs[0].shape
    names = {str(old): new for old, new in zip(first, ("batch", "length"), strict=True)}
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")

    def renamed(dim: Any) -> Any:
        return (
            dim if isinstance(dim, int) else onnx_ir.SymbolicDim(pattern.sub(lambda m: names[m[0]], str(dim)))
        )

    made = [value for node in program.graph.all_nodes() for value in node.outputs]
    for value in {id(value): value for value in (*program.graph.inputs, *made)}.values():
        if value.shape is not None and any(dim != "?" and not isinstance(dim, int) for dim in value.shape):
            value.shape = onnx_ir.Shape([renamed(dim) for dim in value.shape])


def quantized(program: Any, sample: Batch) -> Any:
    """The graph with weights of 8 bits; activations are quantized as they are computed.

    A scale for each column is much closer to float32 than one for each matrix, at the same size and speed.
    """
    from transformers.exporters.configs import ExportFormat
    from transformers.exporters.quantizers import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    with _silent():
        quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))
        return quantizer.quantize(program, sample, ExportFormat.ONNX)


def save(program: Any, path: Path) -> None:
    """Write a graph as one file. If protobuf cannot hold it, its weights lie beside it, where other programs look."""
    import onnx_ir

    size = sum(value.const_value.nbytes for value in program.graph.initializers.values())
    onnx_ir.save(program, path, external_data=f"{path.name}_data" if size > LARGEST else None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what torch, onnxscript and ONNX Runtime print while they work."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with quiet(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
