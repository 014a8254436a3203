"""Fine-tuning, step by step: from the files of a task to a folder that `transformers` loads."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import bert.config as configuration
from bert import checkpoint
from bert.card import compute, hardware
from bert.checkpoint.run import Checkpoint
from bert.errors import UserError
from bert.files import new_file, write_text
from bert.model import models
from bert.model.config import Labels
from bert.model.models import Model
from bert.pages.renewal import Renewal
from bert.tokenizer import Tokenizer
from bert.training import schedules
from bert.training.distributed import from_main, make_accelerator
from bert.training.run_dir import alone, check_run, open_run
from bert.training.state import Result, RunState
from bert.training.trainer import Trainer, find_start
from finetune.account import Account, calibration, sentences
from finetune.baselines import check_baselines
from finetune.batches import FinetuningBatches
from finetune.card import model_card
from finetune.config import (
    KINDS,
    PREDICTIONS,
    RESULTS,
    RUNS,
    SUBMISSION,
    FinetuneConfig,
    ModelConfig,
)
from finetune.data import TaskData, load_task
from finetune.evaluate import Evaluator, IsHopeless
from finetune.predict import RECORD
from finetune.seen import check_store
from finetune.splits import TokenizedSplit
from finetune.submission import Unlabelled, load_unlabelled, predictions
from finetune.submission import write as write_submission
from finetune.tasks.kind import Kind, check_reported, chosen_metric

if TYPE_CHECKING:
    from accelerate import Accelerator

TEST_READINGS = "test_readings.json"
OTHERS = {RUNS: ("*",)}
"""Content of a folder that is not of a single run: of many, whose table it holds."""


def train(config: FinetuneConfig) -> Result:
    """Carry out a run, or the rest of it; writes RUN/model and RUN/results.json."""
    accelerator = make_accelerator(config.training)
    with alone(accelerator, config.run_dir):
        return carry_out(config, accelerator)


def carry_out(
    config: FinetuneConfig, accelerator: "Accelerator", is_hopeless: IsHopeless | None = None
) -> Result:
    """See `train`; no other training uses the run's folder at the same time."""
    from_main(accelerator, lambda: check_run(config, made_from=OTHERS))
    kind = KINDS[config.task.kind]
    data = load_task(config.task)
    unlabelled = load_unlabelled(config.task) if config.submission else {}
    metric = chosen_metric(kind, config.task, data.labels)
    check_reported(kind, config.task, data.labels)
    start = find_start(accelerator, config)
    tokenizer = Tokenizer.load(start.path if start else config.model.from_)
    torch.manual_seed(config.seed)
    model = build_model(config.model, kind.architecture, data.labels, start)
    check(config, model, tokenizer)
    tokenized = {name: kind.encode(split, tokenizer, config.batch) for name, split in data.splits.items()}
    check_lengths(config, tokenized["train"])
    check_account(config, tokenizer)
    steps = schedules.num_steps(config.training, len(tokenized["train"]) / config.batch.sequences)
    schedules.build(config.schedule, steps, config.training.hours is not None)
    from_main(accelerator, lambda: _open(config, data, tokenized))

    processes = accelerator.process_index, accelerator.num_processes
    source = FinetuningBatches(tokenized["train"], config.batch, tokenizer.pad_id, config.seed, *processes)
    evaluator = Evaluator(config, accelerator, tokenizer.pad_id, tokenized["validation"], data.labels, metric)
    evaluator.remember(start)
    if is_hopeless is not None and steps is not None:
        every = config.training.evaluate_every or steps
        evaluator.is_hopeless = lambda number, score: is_hopeless(min(1.0, number * every / steps), score)
    renewal = Renewal(config.run_dir, config.tracking)
    trainer = Trainer(
        config,
        accelerator,
        model,
        source,
        steps=steps,
        tokenizer=tokenizer,
        card=lambda state: model_card(
            config,
            data,
            model,
            _compute(config, accelerator, state),
            {"steps": state.step, "metric": metric, "validation": state.evaluation},
        ),
        evaluate=evaluator,
        start=start,
        evaluated=renewal,
    )
    result = trainer.train()
    if not result.interrupted:
        _finish(config, trainer, result, evaluator, tokenized, data, unlabelled)
    from_main(accelerator, renewal.write)
    return result


def build_model(config: ModelConfig, architecture: str, labels: Labels, start: Checkpoint | None) -> Model:
    """The model of the run's checkpoint; without one, an encoder, pretrained or random, with a new head."""
    if start is not None:
        model = load_model(start.path, architecture)
        if (stored := getattr(model, "labels", labels)) != labels:
            before, now = ", ".join(stored.names), ", ".join(labels.names)
            raise UserError(
                f"{start.path}: its labels are {before}, but the files have {now}; use another run_dir"
            )
    else:
        overrides = _overrides(config)
        model = load_model(config.from_, architecture, labels=labels or None, overrides=overrides)
        if not config.pretrained:
            model = models.build(model.config, architecture, labels)
    model.encoder.requires_grad_(not config.frozen)
    return model.train()


def _overrides(config: ModelConfig) -> dict[str, Any]:
    """The fields of the checkpoint's configuration that are others here."""
    overrides: dict[str, Any] = {}
    if config.frozen:
        overrides = {"dropout": 0.0, "embedding_dropout": None, "attention_dropout": 0.0}
    if config.dropout is not None:
        overrides |= {"dropout": config.dropout, "embedding_dropout": None, "classifier_dropout": None}
    if config.attention_dropout is not None:
        overrides["attention_dropout"] = config.attention_dropout
    if config.pooling is not None:
        overrides["pooling"] = config.pooling
    if config.layer == "mix":
        overrides["layer_mix"] = True
    elif config.layer is not None:
        num_layers = checkpoint.encoder_config(config.from_).num_layers
        if config.layer > num_layers:
            raise UserError(f"model.layer: is {config.layer}, but {config.from_} has {num_layers} layers")
        overrides["num_layers"] = config.layer
    return overrides


def load_model(path: str | Path, architecture: str, **options: Any) -> Model:
    """The model of a checkpoint for a kind of task, in fp32; the options are those of `checkpoint.load`."""
    return checkpoint.load(path, architecture, dtype=torch.float32, **options)


def check(config: FinetuneConfig, model: Model, tokenizer: Tokenizer) -> None:
    """UserError if parts of the configuration do not fit the model or each other."""
    limit, length, budget = model.config.max_positions, config.batch.max_length, config.batch.micro_tokens
    if length > limit:
        raise UserError(f"batch.max_length: is {length}, but the model reads at most {limit} tokens")
    if length > budget:
        raise UserError(f"batch.micro_tokens: {budget} cannot hold one sequence of batch.max_length={length}")
    if config.batch.long_texts in KINDS[config.task.kind].not_for:
        raise UserError(f"batch.long_texts: {config.batch.long_texts} does not go with {config.task.kind}")
    tokenizer.check_fits(model.config.vocab_size, model.config.pad_token_id, str(config.model.from_))


def check_account(config: FinetuneConfig, tokenizer: Tokenizer) -> None:
    """UserError if what is asked of the results cannot be had: better now than after the training."""
    check_baselines(config.task, config.baselines)
    if config.calibrate and not KINDS[config.task.kind].is_calibrated:
        raise UserError(
            f"calibrate: needs probabilities of the labels of texts, which task.kind={config.task.kind} does not have"
        )
    if config.leakage is not None:
        check_store(config.leakage, tokenizer)


def check_lengths(config: FinetuneConfig, train: TokenizedSplit) -> None:
    """UserError if a micro-batch cannot hold the longest unit."""
    longest, budget = int(train.unit_lengths.max()), config.batch.micro_tokens
    if longest > budget:
        raise UserError(
            f"batch.micro_tokens: {budget} cannot hold the choices of an example, {longest} tokens; make it larger"
        )


def _open(config: FinetuneConfig, data: TaskData, tokenized: dict[str, TokenizedSplit]) -> None:
    open_run(config, made_from=OTHERS)
    kind = KINDS[config.task.kind]
    sizes = [f"{len(data.train)} for training", f"{len(data.validation)} for validation"]
    sizes += [f"{len(data.test)} for the test"] if data.test else []
    print(f"{kind.summary(data.labels)}; {kind.examples}: {', '.join(sizes)}", flush=True)
    for note in [*data.notes, *(note for name, part in tokenized.items() for note in _long(name, part))]:
        print(note, flush=True)


def _long(name: str, part: TokenizedSplit) -> list[str]:
    """What is said of the long texts of a split."""
    num_examples = len(part.split)
    said = []
    if part.cut:
        said.append(f"{name}: {part.cut} of {num_examples} are longer than batch.max_length and are cut")
    if part.windowed:
        said.append(
            f"{name}: {part.windowed} of {num_examples} are longer than batch.max_length and are read in windows"
        )
    return said


def _compute(config: FinetuneConfig, accelerator: "Accelerator", state: RunState) -> str:
    on = hardware(accelerator.device, accelerator.num_processes)
    return compute(state.seconds, state.flops, on, config.training.precision)


def _finish(
    config: FinetuneConfig,
    trainer: Trainer,
    result: Result,
    evaluator: Evaluator,
    tokenized: dict[str, TokenizedSplit],
    data: TaskData,
    unlabelled: Mapping[str, Unlabelled],
) -> None:
    """Measure the best checkpoint on the validation and test texts, and save it as the finished model."""
    best = result.best
    assert best is not None, "the end of a run is evaluated"
    kind = KINDS[config.task.kind]
    model = load_model(best.path, kind.architecture, device=trainer.accelerator.device)
    held_out = {name: part for name, part in tokenized.items() if name != "train"}
    reads = from_main(trainer.accelerator, lambda: _note_reading(Path(config.run_dir), best, held_out))
    outputs, speed = _outputs(trainer, evaluator, model, held_out)
    waiting = {
        name: kind.encode(one.split, trainer.tokenizer, config.batch) for name, one in unlabelled.items()
    }
    submitted, _ = _outputs(trainer, evaluator, model, waiting)
    calibrated = calibration(kind, tokenized, outputs)
    if config.calibrate and calibrated is not None:
        outputs = {name: one / calibrated["temperature"] for name, one in outputs.items()}
        _divide_logits(model, calibrated["temperature"])
    measured = {name: kind.measure(part, outputs[name], data.labels) for name, part in held_out.items()}
    details = {name: kind.details(part, outputs[name], data.labels) for name, part in held_out.items()}
    results = {
        "metric": evaluator.metric,
        **measured,
        **({"details": details} if any(details.values()) else {}),
        **_circumstances(config, result, best, tokenized, data),
        "test_readings": reads,
        "texts_per_second": speed,
        "calibration": calibrated and {**calibrated, "applied": config.calibrate},
    }

    def write() -> None:
        folder, record = Path(config.run_dir), {RECORD: configuration.dump(config)}
        rows = {
            name: prediction_rows(kind, part, outputs[name], data.labels) for name, part in held_out.items()
        }
        account = Account(
            config, data, trainer.tokenizer, tokenized, outputs, rows, evaluator.metric, measured
        )
        results.update(account.results())
        card = model_card(config, data, model, _compute(config, trainer.accelerator, trainer.state), results)
        checkpoint.save(model, folder / "model", trainer.tokenizer, card=card, extra=record)
        for name, part in rows.items():
            write_rows(folder / PREDICTIONS / f"{name}.jsonl", part)
        for name, part in waiting.items():
            answers = kind.answers(part, submitted[name], data.labels)
            lines = list(predictions(config.task, data, unlabelled[name], answers))
            write_submission(folder / SUBMISSION / name, lines)
        write_text(folder / RESULTS, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        _show(folder, results, measured)

    from_main(trainer.accelerator, write)


def _circumstances(
    config: FinetuneConfig,
    result: Result,
    best: Checkpoint,
    tokenized: Mapping[str, TokenizedSplit],
    data: TaskData,
) -> dict[str, Any]:
    """What a run's results say of the run itself."""
    return {
        "best_step": best.step,
        "steps": result.step,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "seed": config.seed,
        "kind": config.task.kind,
        "labels": data.labels.names,
        "texts": {name: len(part.split) for name, part in tokenized.items()},
        "cut_texts": {name: part.cut for name, part in tokenized.items()},
    }


def _show(folder: Path, results: Mapping[str, Any], measured: Mapping[str, Mapping[str, float]]) -> None:
    """The end of a run, for people; the sentences are about the test, or without one the validation."""
    print(
        f"the best checkpoint is that of step {results['best_step']}; the finished model is {folder / 'model'}"
    )
    for name, values in measured.items():
        print(f"{name}: " + " · ".join(f"{key} {value:.4f}" for key, value in values.items()))
    for sentence in sentences(results, "test" if "test" in measured else "validation"):
        print(sentence)
    print(f"to label other texts: python -m finetune.predict {folder} FILE output=predictions.csv")


def _outputs(
    trainer: Trainer, evaluator: Evaluator, model: Model, held_out: dict[str, TokenizedSplit]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The outputs of the finished model for each split, and how many of its examples it reads in a second."""
    outputs, speed = {}, {}
    with torch.no_grad(), trainer.stepper.autocast():
        for name, part in held_out.items():
            began = time.perf_counter()
            outputs[name] = evaluator.outputs(model, part)
            speed[name] = round(len(part.split) / (time.perf_counter() - began), 1)
    return outputs, speed


def _divide_logits(model: Model, temperature: float) -> None:
    """Temperature scaling (Guo et al. 2017) in the weights of the last layer, so that every reader has it."""
    with torch.no_grad():
        for parameter in model.get_submodule("classifier").parameters():
            parameter.div_(temperature)


def _note_reading(run_dir: Path, best: Checkpoint, held_out: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Note, before it happens, that the test is measured; returns all notes. A run does so once, at its end; a second
    note means that it was killed in between, and measured the same checkpoint again."""
    path = run_dir / TEST_READINGS
    notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if held_out.keys() - {"validation"}:
        notes.append({"step": best.step, "time": datetime.now(UTC).isoformat(timespec="seconds")})
        write_text(path, json.dumps(notes) + "\n")
    return notes


def prediction_rows(
    kind: Kind, data: TokenizedSplit, outputs: torch.Tensor, labels: Labels
) -> list[dict[str, Any]]:
    """For each example its `row` (file and line), its target, its prediction and what belongs to it."""
    answers = kind.answers(data, outputs, labels)
    return [
        {"row": Path(place).name, "target": kind.shown(target, labels), **answer}
        for place, target, answer in zip(data.split.places, data.split.targets, answers, strict=True)
    ]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write RUN/predictions/SPLIT.jsonl."""
    path.parent.mkdir(exist_ok=True)
    with new_file(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
