"""The model card of a pretrained encoder: how to load it, data, measured results, compute, limits, recipe."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bert import card
from bert import config as configuration
from bert.model.config import EncoderConfig
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer
from bert.training.state import RunState
from pretrain.config import PretrainConfig
from pretrain.data.store import Store
from pretrain.heldout import BY_POSITION, start_of_range

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

MEASURES = {
    "mlm_loss": "masked-language-model loss (nats)",
    "perplexity": "perplexity of masked tokens",
    "mlm_accuracy": "accuracy at masked tokens",
    "unigram_loss": "… loss of guessing by word frequency",
    "unigram_accuracy": "… accuracy of always guessing the most frequent token",
    "nsp_accuracy": "accuracy of the sentence-pair task",
    "nsp_chance": "… of always guessing the more frequent answer",
}
METRIC_TYPES = {
    "mlm_loss": "loss",
    "perplexity": "perplexity",
    "mlm_accuracy": "accuracy",
    "nsp_accuracy": "accuracy",
}
"""what the hub calls the results that are about the model"""

TEMPLATE = """\
A BERT-style encoder of {parameters:.1f} M parameters ({layers} layers, width {width}), pretrained for {step}
steps on {tokens} tokens of text.{origin}

## How to load it

{loading}

## Data

{documents} documents, {stored} tokens, from {files}; {held_out} further documents were held out for
evaluation.

## Results

{results}

## Compute

{compute}

## Limits

{limits}

## Recipe

The run is repeated by `accelerate launch -m pretrain recipe.yaml`, with this as `recipe.yaml`:

```yaml
{recipe}```
"""


def model_card(
    config: PretrainConfig,
    model: MaskedLanguageModel,
    tokenizer: Tokenizer,
    store: Path,
    hardware: str,
    state: RunState,
) -> str:
    """What the model is, what it was trained on and how, what it took, and what it was measured at."""
    train = Store(store)
    files = _files(config)
    mask = tokenizer.special_tokens["mask"]
    sentence = f"The capital of France is {mask}."
    text = TEMPLATE.format(
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        layers=model.config.num_layers,
        width=model.config.hidden_size,
        step=state.step,
        tokens=f"{state.tokens:,}",
        origin=_origin(state),
        loading=card.loading(
            model,
            card.by_pipeline("fill-mask", f'"{sentence}"'),
            f'bert.fill_mask("{card.PLACE}", "{sentence}")',
        ),
        documents=f"{train.num_documents:,}",
        stored=f"{train.num_tokens:,}",
        held_out=f"{Store(store, 'heldout').num_documents:,}",
        files=", ".join(f"`{file}`" for file in files),
        results=_results(state),
        compute=card.compute(state.seconds, state.flops, hardware, config.training.precision),
        limits="\n".join(f"- {limit}" for limit in _limits(config, model, tokenizer)),
        recipe=configuration.dump(_with_shape(config, model)),
    )
    return card.render(
        config.card,
        model,
        Path(config.run_dir).resolve().name,
        text,
        pipeline="fill-mask",
        tags=["masked-language-modeling"],
        datasets=card.hub_datasets(files),
        results=_measured(state),
    )


def _files(config: PretrainConfig) -> list[str]:
    return [file for source in config.corpus.sources for file in source.files] or config.corpus.files


def _limits(config: PretrainConfig, model: MaskedLanguageModel, tokenizer: Tokenizer) -> Iterator[str]:
    longest, trained = model.config.max_positions, config.batch.max_length
    trained = max([trained, *(phase.max_length or 0 for phase in config.batch.phases)])
    yield f"It reads at most {longest} tokens."
    if trained < longest:
        yield f"It was trained on sequences of up to {trained} tokens; longer ones are untried."
    if tokenizer.takes_as_one("A", "a"):
        accents = ", nor letters with accents from those without" if tokenizer.takes_as_one("é", "e") else ""
        yield f"It does not tell upper from lower case{accents}."
    elif tokenizer.takes_as_one("é", "e"):
        yield "It does not tell letters with accents from those without."
    if config.card.language:
        names = card.known_languages()
        yield f"It knows {', '.join(names[code] for code in config.card.language)}, and no other language."
    yield "It repeats what its texts say, and their mistakes and prejudices. Nobody has looked for these."
    yield "It fills masks and gives vectors of texts. For search, fine-tune it on pairs of texts first."


def _measured(state: RunState) -> list["EvalResult"]:
    """The results on held-out text, as the hub lists them."""
    from huggingface_hub import EvalResult

    found = []
    for name, value in state.evaluation.items():
        text, _, metric = name.rpartition("/")
        if metric in METRIC_TYPES:
            of = text or "held-out documents of the training texts"
            found.append(
                EvalResult(
                    task_type="fill-mask",
                    dataset_type="text",
                    dataset_name=f"{of}, 15 % of the tokens masked",
                    dataset_config=text or None,
                    dataset_split="heldout",
                    metric_type=METRIC_TYPES[metric],
                    metric_name=MEASURES[metric],
                    metric_value=round(value, 4),
                )
            )
    return found


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
            found[name] = f"{text and text + ': '}… loss at positions {start_of_range(end)} to {end}"
        elif text and metric in MEASURES:
            found[name] = f"{text}: {MEASURES[metric]}"
    return found
