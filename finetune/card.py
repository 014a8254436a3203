"""The model card of a fine-tuned model."""

from pathlib import Path
from typing import Any

import bert.config as configuration
from finetune.config import KINDS, FinetuneConfig
from finetune.data import TaskData

_TEMPLATE = """\
---
library_name: transformers
pipeline_tag: {pipeline}
---

# {title}

{start}, fine-tuned on {num_train} {what} {labels}.

| | {metrics} |
|---|{rules}|
{rows}

{chosen}

```python
from transformers import pipeline

answer = pipeline("{pipeline}", "PATH OF THIS FOLDER")
answer({call})
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
    kind = KINDS[config.task.kind]
    start = "An encoder" if config.model.pretrained else "A randomly initialised encoder"
    everything = configuration.to_dict(config)
    recipe = {
        key: _told(everything[key]) for key in ("seed", "task", "batch", "optimizer", "schedule", "training")
    }
    return _TEMPLATE.format(
        title=Path(config.run_dir).name,
        start=f"{start} (`{Path(config.model.from_).name}`)",
        num_train=len(data.train),
        what=kind.examples_of(config.task),
        labels=kind.purpose(data.labels),
        pipeline=kind.pipeline,
        metrics=" | ".join(names) or "not yet measured",
        rules="|".join(["---"] * max(len(names), 1)),
        rows="\n".join(rows),
        chosen=f"After step {results.get('best_step', results['steps'])} of {results['steps']}, "
        f"chosen by {results['metric']} on the validation {kind.examples}.",
        call=kind.call(config.task),
        recipe=configuration.yaml12.dump(recipe),
    )


def _told(section: Any) -> Any:
    """A section without keys that are not set, and with file names instead of paths."""
    if not isinstance(section, dict):
        return section
    files = ("train", "validation", "test")
    return {k: Path(v).name if k in files else v for k, v in section.items() if v not in (None, {})}
