"""The model card of a pretrained encoder: data, recipe, measured results."""

from dataclasses import fields, replace
from pathlib import Path

from bert import config as configuration
from bert.model.config import EncoderConfig
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer
from bert.training.state import RunState
from pretrain.config import PretrainConfig
from pretrain.data.store import Store

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
steps on {tokens} tokens of text.

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


def _results(state: RunState) -> str:
    if not state.evaluation:
        return "Not evaluated yet."
    rows = [
        f"| {words} | {state.evaluation[name]:.4f} |"
        for name, words in MEASURES.items()
        if name in state.evaluation
    ]
    return "\n".join(["On held-out text, 15 % of its tokens masked:", "", "| | |", "|---|---|", *rows])
