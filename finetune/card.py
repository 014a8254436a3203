"""The model card of a fine-tuned model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bert.config as configuration
from bert import card
from bert.model.models import Model
from finetune.account import sentences
from finetune.config import KINDS, FinetuneConfig
from finetune.data import TaskData

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

MOST_CLASSES = 20
"""of which the card lists each"""
_TEMPLATE = """\
{start}, fine-tuned on {num_train} {what} {labels}.

## How to load it

{loading}

## Results

| | {metrics} |
|---|{rules}|
{rows}

{chosen}
{explained}
## Compute

{compute}

## Limits

{limits}

## Recipe

```yaml
{recipe}```
"""


def model_card(
    config: FinetuneConfig, data: TaskData, model: Model, compute: str, results: dict[str, Any]
) -> str:
    """The model card: what the model is, how to load it, its measured metrics, what it took, and its recipe."""
    measured = {
        name: results[name] for name in ("validation", "test", *config.task.other_tests) if results.get(name)
    }
    names = list(next(iter(measured.values()), {}))
    rows = [
        f"| {name} | {' | '.join(f'{v:.4f}' for v in values.values())} |" for name, values in measured.items()
    ]
    kind = KINDS[config.task.kind]
    start = "An encoder" if config.model.pretrained else "A randomly initialised encoder"
    everything = configuration.to_dict(config)
    recipe = {
        key: _shown(everything[key]) for key in ("seed", "task", "batch", "optimizer", "schedule", "training")
    }
    text = _TEMPLATE.format(
        start=f"{start} (`{Path(config.model.from_).name}`)",
        num_train=len(data.train),
        what=kind.examples_of(config.task),
        labels=kind.purpose(data.labels),
        loading=card.loading(model, kind.in_transformers(config.task), kind.in_ours(config.task)),
        metrics=" | ".join(names) or "not yet measured",
        rules="|".join(["---"] * max(len(names), 1)),
        rows="\n".join(rows),
        chosen=f"After step {results.get('best_step', results['steps'])} of {results['steps']}, "
        f"chosen by {results['metric']} on the validation {kind.examples}.",
        explained="".join(f"\n{part}\n" for part in _explained(results)),
        compute=compute,
        limits="\n".join(f"- {limit}" for limit in _limits(config, model)),
        recipe=configuration.yaml12.dump(recipe),
    )
    dataset = (config.task.dataset or "").partition(":")[0]
    return card.render(
        config.card,
        model,
        Path(config.run_dir).resolve().name,
        text,
        pipeline=kind.pipeline,
        tags=[config.task.kind],
        datasets=[dataset] if dataset else [],
        results=_measured(config, kind.pipeline, measured),
    )


def _explained(results: dict[str, Any]) -> Iterator[str]:
    """What the finished model's results say beside its metrics, on the test texts if there are any."""
    if "baselines" not in results:  # a checkpoint of a run that goes on
        return
    split = "test" if "test" in results["baselines"]["majority"] else "validation"
    yield "\n".join(f"- {sentence}." for sentence in sentences(results, split))
    if calibration := results["calibration"]:
        applied = "with" if calibration["applied"] else "without"
        name = "ece_with_temperature" if calibration["applied"] else "ece"
        yield f"Expected calibration error: {calibration[name][split]:.4f}, {applied} temperature scaling."
    if (found := results["explained"].get(split)) and len(found["classes"]) <= MOST_CLASSES:
        cells = [
            f"| {name} | {one['precision']:.3f} | {one['recall']:.3f} | {one['f1']:.3f} | {one['examples']} |"
            for name, one in found["classes"].items()
        ]
        yield "\n".join(
            [f"| {split} | precision | recall | F1 | examples |", "|---|---|---|---|---|", *cells]
        )


def _limits(config: FinetuneConfig, model: Model) -> Iterator[str]:
    if config.batch.max_length < model.config.max_positions:
        yield f"It was fine-tuned on sequences of up to {config.batch.max_length} tokens; longer ones are untried."
    yield f"It reads at most {model.config.max_positions} tokens."
    yield "It knows the kinds of texts that it was fine-tuned on. What it says of others is not measured."


def _measured(
    config: FinetuneConfig, pipeline: str, measured: dict[str, dict[str, float]]
) -> list["EvalResult"]:
    """The results, as the hub lists them."""
    from huggingface_hub import EvalResult

    task = config.task
    dataset, _, part = (task.dataset or "").partition(":")
    return [
        EvalResult(
            task_type=pipeline,
            dataset_type=dataset or "text",
            dataset_name=task.dataset
            or Path(
                task.other_tests.get(split) or getattr(task, split) or f"a part of {Path(task.train).name}"
            ).name,
            dataset_config=part or None,
            dataset_split=split,
            metric_type=name,
            metric_value=round(value, 4),
        )
        for split, values in measured.items()
        for name, value in values.items()
    ]


def _shown(section: Any) -> Any:
    """A section without keys that are not set, and with file names instead of paths."""
    if not isinstance(section, dict):
        return section
    shown = {k: v for k, v in section.items() if v not in (None, {}, [])}
    for name in {"train", "validation", "test"} & shown.keys():
        shown[name] = Path(shown[name]).name
    for name in {"other_tests", "unlabelled"} & shown.keys():
        shown[name] = {k: Path(v).name for k, v in shown[name].items()}
    return shown
