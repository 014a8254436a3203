"""Fine-tuning, step by step: from the files of a task to a folder that `transformers` loads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import bert.config as configuration
from bert import checkpoint
from bert.checkpoint.run import Checkpoint
from bert.errors import UserError
from bert.files import write_text
from bert.model import models
from bert.model.config import Labels
from bert.model.models import SequenceClassifier
from bert.tokenizer import Tokenizer
from bert.training import schedules
from bert.training.distributed import from_main, make_accelerator
from bert.training.run_dir import alone, check_run, open_run
from bert.training.state import Result
from bert.training.trainer import Trainer, find_start
from finetune.batches import FinetuningBatches, TokenizedSplit, tokenize
from finetune.card import model_card
from finetune.config import FinetuneConfig, ModelConfig
from finetune.data import TaskData, load_task
from finetune.evaluate import Evaluator
from finetune.predict import RECORD
from finetune.tasks import chosen_metric

if TYPE_CHECKING:
    from accelerate import Accelerator

RESULTS = "results.json"


def train(config: FinetuneConfig) -> Result:
    """Carry out a run, or the rest of it; writes RUN/model and RUN/results.json."""
    accelerator = make_accelerator(config.training)
    with alone(accelerator, config.run_dir):
        return carry_out(config, accelerator)


def carry_out(config: FinetuneConfig, accelerator: "Accelerator") -> Result:
    """See `train`; no other training uses the run's folder at the same time."""
    from_main(accelerator, lambda: check_run(config))
    data = load_task(config.task)
    metric = chosen_metric(config.task, data.labels)
    start = find_start(accelerator, config)
    tokenizer = Tokenizer.load(start.path if start else config.model.from_)
    torch.manual_seed(config.seed)
    model = build_model(config.model, data.labels, start)
    steps = schedules.num_steps(config.training, len(data.train) / config.batch.sequences)
    check(config, model, steps)
    from_main(accelerator, lambda: _open(config, data))

    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    tokenized = {
        name: tokenize(split, tokenizer, config.batch.max_length) for name, split in splits.items() if split
    }
    processes = accelerator.process_index, accelerator.num_processes
    source = FinetuningBatches(tokenized["train"], config.batch, tokenizer.pad_id, config.seed, *processes)
    evaluator = Evaluator(config, accelerator, tokenizer.pad_id, tokenized["validation"], metric)
    evaluator.remember(start)
    trainer = Trainer(
        config,
        accelerator,
        model,
        source,
        steps=steps,
        tokenizer=tokenizer,
        card=lambda state: model_card(
            config, data, {"steps": state.step, "metric": metric, "validation": state.evaluation}
        ),
        evaluate=evaluator,
        start=start,
    )
    result = trainer.train()
    if not result.interrupted:
        _finish(config, trainer, result, evaluator, tokenized, data)
    return result


def build_model(config: ModelConfig, labels: Labels, start: Checkpoint | None) -> SequenceClassifier:
    """The classifier of the run's checkpoint; without one, an encoder, pretrained or random, with a new head."""
    if start is not None:
        model = load_classifier(start.path)
        if model.labels != labels:
            before, now = ", ".join(model.labels.names), ", ".join(labels.names)
            raise UserError(
                f"{start.path}: its labels are {before}, but the files have {now}; use another run_dir"
            )
        return model.train()
    overrides: dict[str, Any] = {}
    if config.dropout is not None:
        overrides = {"dropout": config.dropout, "embedding_dropout": None, "classifier_dropout": None}
    if config.attention_dropout is not None:
        overrides["attention_dropout"] = config.attention_dropout
    model = load_classifier(config.from_, labels=labels, overrides=overrides)
    if not config.pretrained:
        fresh = models.build(model.config, SequenceClassifier.__name__, labels)
        assert isinstance(fresh, SequenceClassifier)
        return fresh.train()
    return model.train()


def load_classifier(path: str | Path, **options: Any) -> SequenceClassifier:
    """The model of a checkpoint as a classifier in fp32; the options are those of `checkpoint.load`."""
    model = checkpoint.load(path, SequenceClassifier, dtype=torch.float32, **options)
    assert isinstance(model, SequenceClassifier)
    return model


def check(config: FinetuneConfig, model: SequenceClassifier, steps: int | None) -> None:
    """UserError if parts of the configuration do not fit the model, the length of the run, or each other."""
    schedules.build(config.schedule, steps, config.training.hours is not None)
    limit, length, budget = model.config.max_positions, config.batch.max_length, config.batch.micro_tokens
    if length > limit:
        raise UserError(f"batch.max_length: is {length}, but the model reads at most {limit} tokens")
    if length > budget:
        raise UserError(f"batch.micro_tokens: {budget} cannot hold one sequence of batch.max_length={length}")


def _open(config: FinetuneConfig, data: TaskData) -> None:
    open_run(config)
    sizes = [f"{len(data.train)} for training", f"{len(data.validation)} for validation"]
    sizes += [f"{len(data.test)} for the test"] if data.test else []
    print(f"{len(data.labels)} labels; texts: {', '.join(sizes)}", flush=True)
    for note in data.notes:
        print(note, flush=True)


def _finish(
    config: FinetuneConfig,
    trainer: Trainer,
    result: Result,
    evaluator: Evaluator,
    tokenized: dict[str, TokenizedSplit],
    data: TaskData,
) -> None:
    """Measure the best checkpoint on the validation and test texts, and save it as the finished model."""
    best = result.best
    assert best is not None, "the end of a run is evaluated"
    model = load_classifier(best.path, device=trainer.accelerator.device)
    with torch.no_grad(), trainer.stepper.autocast():
        measured = {
            name: evaluator.measure(model, part) for name, part in tokenized.items() if name != "train"
        }
    results = {
        "metric": evaluator.metric,
        **measured,
        "best_step": best.step,
        "steps": result.step,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "seed": config.seed,
        "labels": data.labels.names,
        "texts": {name: len(part) for name, part in tokenized.items()},
        "cut_texts": {name: part.cut for name, part in tokenized.items()},
    }

    def write() -> None:
        folder, record = Path(config.run_dir), {RECORD: configuration.dump(config)}
        card = model_card(config, data, results)
        checkpoint.save(model, folder / "model", trainer.tokenizer, card=card, extra=record)
        write_text(folder / RESULTS, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        print(f"the best checkpoint is that of step {best.step}; the finished model is {folder / 'model'}")
        for name, values in measured.items():
            print(f"{name}: " + " · ".join(f"{key} {value:.4f}" for key, value in values.items()))
        print(f"to label other texts: python -m finetune.predict {folder} FILE output=predictions.csv")

    from_main(trainer.accelerator, write)
