"""Graphs for ONNX Runtime beside torch: how far apart, how often int8 predicts the same, and how fast each is.

    python benchmarks/onnx_graphs.py [FOLDER ...] [--quick]

Small encoders (4 layers of 256) with random weights: BERT, RoBERTa and ModernBERT with every head, the other
architectures with a masked language model; or the checkpoints in the FOLDERs.
Texts are from the reference of Python; batches have 8 of them, as they come, and are padded to the longest. All sides
get the same padded batches on the same threads, in turns, in one process; ratios are medians over rounds. The other
side is transformers in torch, with SDPA, in float32. With random weights the largest logits are close to each other, so
int8 agrees less often than after training.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import onnxruntime
import tokenizer_kinds
import torch
import transformers
from measuring import ratio, table, timed, write

import bert
from bert import checkpoint, huggingface
from bert.export.comparison import Batch, batches_of, compare
from bert.export.onnx import GRAPH, inputs_of, load_theirs, quantized, save, trace
from bert.model.models import Model, build
from bert.tokenizer import Tokenizer

SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 130,
    "num_labels": 4,
}
LONGEST, VOCABULARY, BATCH = 128, 8000, 8
HEADS = {
    "EncoderModel": "encoder",
    "PretrainingModel": "pretraining",
    "MaskedLanguageModel": "masked LM",
    "SequenceClassifier": "texts",
    "TokenClassifier": "tokens",
    "QuestionAnswering": "questions",
}
IN_FULL = ("bert", "roberta", "modernbert")
"""architectures that are measured with every head; the others with a masked language model"""


def texts(number: int) -> list[str]:
    """Some paragraphs of Python's reference."""
    paragraphs = [" ".join(text.split()) for topic in topics.values() for text in topic.split("\n\n")]
    found = [text for text in paragraphs if len(text) > 100 and text.endswith(".")]
    return found[:: max(1, len(found) // number)][:number]


def models(tokenizer: Tokenizer, quick: bool) -> Iterator[tuple[str, Model]]:
    """Each architecture and head, with random weights."""
    for model_type, family in sorted(huggingface.FAMILIES.items(), key=lambda item: item[0] not in IN_FULL):
        heads = [head for head in HEADS if head in family.classes]
        if model_type not in IN_FULL:
            heads = ["MaskedLanguageModel"]
        if family.classes.get("PretrainingModel") == family.classes["MaskedLanguageModel"]:
            heads = [head for head in heads if head != "PretrainingModel"]
        for head in heads if not quick else heads[:1]:
            ids = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
            theirs = transformers.AutoConfig.for_model(model_type, **SHAPE, **ids)
            written = {**theirs.to_dict(), "architectures": [family.classes[head]]}
            config, _, _ = huggingface.import_config(written)
            torch.manual_seed(0)
            yield f"{model_type}, {HEADS[head]}", build(config, head, bert.Labels(tuple("abcd"))).eval()


def measure(model: Model, tokenizer: Tokenizer, sample: Sequence[str], rounds: int) -> dict[str, Any]:
    """The graphs of a model, compared with torch and timed beside it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        checkpoint.save(model, folder / "checkpoint", tokenizer)
        theirs = load_theirs(folder / "checkpoint")
        batches = batches_of(sample, tokenizer, model, inputs_of(theirs, model), (BATCH,))
        program = trace(theirs, batches, model.config.max_positions)
        graphs = {name: folder / name / GRAPH for name in ("onnx", "int8")}
        for name, path in graphs.items():
            path.parent.mkdir()
            save(program if name == "onnx" else quantized(program, batches[0]), path)
        reports = {name: compare(path, theirs, batches, model) for name, path in graphs.items()}
        seconds = in_turns(theirs, graphs, batches, rounds)
    return {
        "difference": reports["onnx"].greatest,
        "int8": {name: value.record() for name, value in reports["int8"].agreements.items()},
        "agreement": "; ".join(map(str, reports["int8"].agreements.values())),
        "bytes": {name: report.size for name, report in reports.items()},
        "times_as_fast": {name: ratio(seconds["torch"], seconds[name]) for name in graphs},
        "seconds": seconds,
    }


def in_turns(
    theirs: Any, graphs: dict[str, Path], batches: Sequence[Batch], rounds: int
) -> dict[str, list[float]]:
    """Seconds of all batches, for torch and each graph, in each round; a first round warms up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    feeds = [{key: tensor.numpy() for key, tensor in batch.items()} for batch in batches]

    def run_torch() -> None:
        with torch.inference_mode():
            for batch in batches:
                theirs(**batch)

    def run_graph(session: Any) -> None:
        for feed in feeds:
            session.run(None, feed)

    sides: dict[str, Any] = {"torch": run_torch}
    for name, path in graphs.items():
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        sides[name] = partial(run_graph, session)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            seconds[name].append(timed(side))
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", help="checkpoints to measure, instead of random weights")
    parser.add_argument("--quick", action="store_true", help="one head of each architecture, few texts")
    given = parser.parse_args()
    transformers.logging.disable_progress_bar()
    sample = texts(16 if given.quick else 32)
    if given.folders:
        chosen = ((Path(f).name, checkpoint.load(f).eval(), Tokenizer.load(f)) for f in given.folders)
    else:
        tokenizer = Tokenizer(tokenizer_kinds.bert(texts(2000), VOCABULARY))
        chosen = ((name, model, tokenizer) for name, model in models(tokenizer, given.quick))
    results: dict[str, Any] = {}
    for name, model, its_tokenizer in chosen:
        results[name] = measure(model, its_tokenizer, sample, rounds=3 if given.quick else 5)
        times = " and ".join(f"{value:.2f}" for value in results[name]["times_as_fast"].values())
        print(
            f"{name}: {results[name]['difference']:.1e}, {times} times; {results[name]['agreement']}",
            flush=True,
        )
    columns = ["", "difference", "onnx ×", "int8 ×", "MB", "int8 MB", "int8 beside torch"]
    rows = [
        [
            name,
            f"{found['difference']:.1e}",
            *(f"{found['times_as_fast'][side]:.2f}" for side in ("onnx", "int8")),
            *(f"{found['bytes'][side] / 1e6:.1f}" for side in ("onnx", "int8")),
            found["agreement"],
        ]
        for name, found in results.items()
    ]
    write("onnx-checkpoints" if given.folders else "onnx", {"results": results}, table(columns, rows))


if __name__ == "__main__":
    main()
