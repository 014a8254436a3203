"""The model card of a pretrained encoder: data, recipe, measured results."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from bert import config as configuration
from bert.model.config import EncoderConfig
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer
from bert.training.state import RunState
from pretrain.config import PretrainConfig
from pretrain.data.store import Store
from pretrain.heldout import BY_POSITION, FIRST_POSITIONS

MEASURES = {
    "mlm_loss": "masked-language-model loss (nats)",
    "perplexity": "perplexity of masked tokens",
    "mlm_accuracy": "accuracy at masked tokens",
    "unigram_loss": "… loss of guessing by word frequency",
    "unigram_accuracy": "… accuracy of always guessing the most frequent token",
    "nsp_accuracy": "accuracy of the sentence-pair task",
    "nsp_chance": "… of always guessing the more frequent answer",
}

TEMPLATE = """\
---
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, fill-mask]
---

# {title}

A BERT-style encoder of {parameters:.1f} M parameters ({layers} layers, width {width}), pretrained for {step}
steps on {tokens} tokens of text.{origin}

```python
from transformers import pipeline

fill = pipeline("fill-mask", "PATH OF THIS FOLDER")
fill("The capital of France is {mask}.")
```

## Data

{documents} documents, {stored} tokens, from {files}; {held_out} further documents were held out for
evaluation.

## Results

{results}

## Recipe

```yaml
{recipe}```
"""


def model_card(
    config: PretrainConfig, model: MaskedLanguageModel, tokenizer: Tokenizer, store: Path, state: RunState
) -> str:
    """What the model is, what it was trained on and how, and what it was measured at."""
    train = Store(store)
    sources = [file for source in config.corpus.sources for file in source.files] or config.corpus.files
    return TEMPLATE.format(
        title=Path(config.run_dir).resolve().name,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        layers=model.config.num_layers,
        width=model.config.hidden_size,
        step=state.step,
        tokens=f"{state.tokens:,}",
        origin=_origin(state),
        mask=tokenizer.special_tokens["mask"],
        documents=f"{train.num_documents:,}",
        stored=f"{train.num_tokens:,}",
        held_out=f"{Store(store, 'heldout').num_documents:,}",
        files=", ".join(f"`{file}`" for file in sources),
        results=_results(state),
        recipe=configuration.dump(_with_shape(config, model)),
    )


def _with_shape(config: PretrainConfig, model: MaskedLanguageModel) -> PretrainConfig:
    """The configuration with the shape that the model has: the vocabulary is the tokenizer's, and with `model.from` the
    shape is that of the checkpoint."""
    shape = {field.name: getattr(model.config, field.name) for field in fields(EncoderConfig)}
    return replace(config, model=replace(config.model, **shape))


def _origin(state: RunState) -> str:
    """Of a run that continues another model: which one, and what was changed in it."""
    origin = state.origin
    if not origin:
        return ""
    step = "" if origin["step"] is None else f" after its step {origin['step']}"
    digest = f"\n(manifest SHA-256 {origin['digest']})" if origin["digest"] else ""
    what = "weights and optimizer state" if origin["key"] == "training.branch_from" else "weights"
    changes = "".join(f"\n- {change}" for change in origin["changes"])
    return f"\n\nIt began with the {what} of `{origin['path']}`{step}{digest}.{changes and chr(10)}{changes}"


def _results(state: RunState) -> str:
    if not state.evaluation:
        return "Not evaluated yet."
    measured, before = state.evaluation, state.before
    rows = [
        f"| {words} | {measured[name]:.4f} |"
        + (f" {before[name]:.4f} |" if name in before else " |" if before else "")
        for name, words in _measures(measured).items()
    ]
    heads = "| | after | before |\n|---|---|---|" if before else "| | |\n|---|---|"
    return "\n".join(["On held-out text, 15 % of its tokens masked:", "", heads, *rows])


def _measures(measured: Mapping[str, float]) -> dict[str, str]:
    """Metric → its words: of the run's own text, by position, then of the other texts."""
    found = {name: words for name, words in MEASURES.items() if name in measured}
    for name in measured:
        text, _, metric = name.rpartition("/")
        if metric.startswith(BY_POSITION):
            end = int(metric.removeprefix(BY_POSITION))
            start = end // 2 + 1 if end > FIRST_POSITIONS else 1
            found[name] = f"{text and text + ': '}… loss at positions {start} to {end}"
        elif text and metric in MEASURES:
            found[name] = f"{text}: {MEASURES[metric]}"
    return found
