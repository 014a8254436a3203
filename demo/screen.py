"""What the demo has come to: python demo/screen.py PRETRAINED FINE_TUNED WITHOUT_PRETRAINING"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert.errors import UserError, run_command

NEXT = """\
Now with your own text, a folder of .txt files, say:

  source .venv/bin/activate
  accelerate launch --config_file configs/accelerate/single.yaml -m pretrain \\
      demo/pretrain.yaml run_dir=runs/mine corpus.files=PATH/TO/TEXTS

This encoder is at your disposal: bert fill-mask {run} "The [MASK] raises an error."
"""


def screen(run: Path, tuned: Path, untrained: Path) -> None:
    """Print the results of the three runs."""
    from rich.console import Console
    from rich.panel import Panel

    console = Console(width=min(Console().width, 100), highlight=False)
    console.print()
    console.print(Panel(_read(run), title="An encoder, from raw text", title_align="left", padding=(1, 2)))
    console.print(_table(_last_line(run / "evaluations.jsonl"), _results(tuned), _results(untrained)))
    console.print()
    for line in filled(run):
        console.print(f"  {line}", markup=False)
    console.print()
    console.print(NEXT.format(run=run), markup=False)


def _read(run: Path) -> str:
    """What was trained, on what, for how long."""
    from pretrain.data.store import Store

    store, last = Store(run / "store"), _last_line(run / "metrics.jsonl")
    read = f"{last['tokens'] / 1e6:.1f} M read in {last['step']:,} steps, {last['seconds'] / 60:.1f} minutes"
    return (
        f"Documentation of {store.num_documents:,} modules, {store.num_tokens / 1e6:.1f} M tokens; {read}.\n"
        f"The encoder is {run}/model, a Hugging Face directory."
    )


def _table(pretrained: dict[str, Any], tuned: dict[str, Any], untrained: dict[str, Any]) -> Any:
    """What was measured, beside what guessing reaches."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for heading, side in (
        ("on text it has never seen", "left"),
        ("reached", "right"),
        ("beside", "right"),
        ("", "left"),
    ):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    table.add_row(
        "masked words guessed",
        _percent(pretrained["mlm_accuracy"]),
        _percent(pretrained["unigram_accuracy"]),
        "always the most frequent word",
    )
    table.add_row(
        "loss of the guesses (nats)",
        f"{pretrained['mlm_loss']:.2f}",
        f"{pretrained['unigram_loss']:.2f}",
        "word frequencies",
    )
    table.add_row(
        "does B follow A?", _percent(pretrained["nsp_accuracy"]), _percent(pretrained["nsp_chance"]), "chance"
    )
    table.add_row(
        "which package does a paragraph document?",
        _percent(tuned["test"]["accuracy"]),
        _percent(untrained["test"]["accuracy"]),
        "the same model without pretraining",
    )
    labels, texts = len(tuned["labels"]), tuned["texts"]["test"]
    table.caption = (
        f"({labels} packages, {texts:,} paragraphs that name none; chance is {_percent(1 / labels)})"
    )
    table.caption_justify = "left"
    return table


def filled(run: Path) -> list[str]:
    """The example sentences of the run with their masks filled."""
    import bert
    from bert.config.filling import read_yaml

    sentences = read_yaml(run / "config.yaml")["evaluation"]["sentences"]
    answers = bert.fill_mask(str(run), sentences, top_k=3)
    words = [
        ", ".join(f"{one['token_str']} {_percent(one['score'])}" for one in answer) for answer in answers
    ]
    return [f"{sentence}   →   {word}" for sentence, word in zip(sentences, words, strict=True)]


def _last_line(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8").splitlines()[-1])


def _results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def main(argv: Sequence[str]) -> None:
    if len(argv) != 3:
        raise UserError("usage: python demo/screen.py PRETRAINED FINE_TUNED WITHOUT_PRETRAINING")
    screen(*map(Path, argv))


if __name__ == "__main__":
    sys.exit(run_command(main))
