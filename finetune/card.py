"""The model card of a fine-tuned model."""

import json
from pathlib import Path
from typing import Any

import bert.config as configuration
from finetune.config import FinetuneConfig
from finetune.data import TaskData

_TEMPLATE = """\
---
library_name: transformers
pipeline_tag: text-classification
---

# {title}

{start}, fine-tuned on {num_train} {what} to tell {labels}.

| | {metrics} |
|---|{rules}|
{rows}

{chosen}

```python
from transformers import pipeline

classify = pipeline("text-classification", "PATH OF THIS FOLDER")
classify({call})
```

## Recipe

```yaml
{recipe}```
"""


def model_card(config: FinetuneConfig, data: TaskData, results: dict[str, Any]) -> str:
    """The model card: what the model is, its measured metrics, and its recipe."""
    measured = {name: results[name] for name in ("validation", "test") if results.get(name)}
    names = list(next(iter(measured.values()), {}))
    rows = [
        f"| {name} | {' | '.join(f'{v:.4f}' for v in values.values())} |" for name, values in measured.items()
    ]
    pair = config.task.pair_column is not None
    start = "An encoder" if config.model.pretrained else "A randomly initialised encoder"
    labels = ", ".join(data.labels.names)
    everything = configuration.to_dict(config)
    recipe = {
        key: _told(everything[key]) for key in ("seed", "task", "batch", "optimizer", "schedule", "training")
    }
    return _TEMPLATE.format(
        title=Path(config.run_dir).name,
        start=f"{start} (`{Path(config.model.from_).name}`)",
        num_train=len(data.train),
        what="pairs of texts" if pair else "texts",
        labels=f"{len(data.labels)} labels apart: {labels}"
        if data.labels.problem_type != "regression"
        else labels,
        metrics=" | ".join(names) or "not yet measured",
        rules="|".join(["---"] * max(len(names), 1)),
        rows="\n".join(rows),
        chosen=f"After step {results.get('best_step', results['steps'])} of {results['steps']}, "
        f"chosen by {results['metric']} on the validation texts.",
        call=json.dumps({"text": "one text", "text_pair": "the other"} if pair else "some text"),
        recipe=configuration.yaml12.dump(recipe),
    )


def _told(section: Any) -> Any:
    """A section without keys that are not set, and with file names instead of paths."""
    if not isinstance(section, dict):
        return section
    files = ("train", "validation", "test")
    return {k: Path(v).name if k in files else v for k, v in section.items() if v not in (None, {})}
