"""Show the results of the demo: python demo/screen.py PRETRAINED FINE_TUNED WITHOUT_PRETRAINING"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert.errors import UserError, run_command

ROW = "  {:<36}{:>9}{:>9}   {}"
NEXT = """\
Now try your own text, for example a folder of .txt files:

  source .venv/bin/activate
  accelerate launch --config_file configs/accelerate/single.yaml -m pretrain \\
      demo/pretrain.yaml run_dir=runs/mine corpus.files=PATH/TO/TEXTS

or use this encoder:

  bert fill-mask {run} "The [MASK] raises an error."
"""


def lines(run: Path, tuned: Path, untrained: Path) -> Iterator[tuple[str, str]]:
    """The screen, a (style, text) at a time."""
    pretrained, classifier = _last_line(run / "evaluations.jsonl"), _results(tuned)
    yield "bold", "An encoder, from raw text"
    yield "", _how(run)
    yield "bold", ROW.format("On held-out text", "reached", "to beat", "").rstrip()
    yield from (("", ROW.format(*row)) for row in _rows(pretrained, classifier, _results(untrained)))
    labels, texts = len(classifier["labels"]), classifier["texts"]["test"]
    yield (
        "dim",
        f"  ({texts:,} paragraphs that name no package, {labels} packages; chance {_percent(1 / labels)})\n",
    )
    yield "bold", "Words it predicts for [MASK]"
    for sentence, words in filled(run):
        yield "", f"  {sentence}\n      {words}"
    yield "", ""
    yield "", NEXT.format(run=run)


def _how(run: Path) -> str:
    """What it was trained on, for how long, and where it is."""
    from pretrain.data.store import Store

    store, last = Store(run / "store"), _last_line(run / "metrics.jsonl")
    minutes = last["seconds"] / 60
    return (
        f"  The documentation of {store.num_documents:,} modules, {store.num_tokens / 1e6:.1f} M tokens.\n"
        f"  {last['tokens'] / 1e6:.1f} M tokens read in {last['step']:,} steps, {minutes:.1f} minutes.\n"
        f"  The encoder is {run}/model, a Hugging Face directory.\n"
    )


def _rows(
    pretrained: dict[str, Any], tuned: dict[str, Any], untrained: dict[str, Any]
) -> list[tuple[str, ...]]:
    """The measured values, and the baselines."""
    shares = {
        name: _percent(value) for name, value in pretrained.items() if name.endswith(("accuracy", "chance"))
    }
    losses = [f"{pretrained[name]:.2f}" for name in ("mlm_loss", "unigram_loss")]
    accuracies = [_percent(results["test"]["accuracy"]) for results in (tuned, untrained)]
    return [
        ("masked words guessed", shares["mlm_accuracy"], shares["unigram_accuracy"], "most frequent word"),
        ("loss of these guesses (nats)", *losses, "word frequencies"),
        ("does sentence B follow A?", shares["nsp_accuracy"], shares["nsp_chance"], "more frequent answer"),
        ("which package is a paragraph from?", *accuracies, "not pretrained"),
    ]


def filled(run: Path) -> list[tuple[str, str]]:
    """The example sentences of the run, each with the best words for its mask."""
    import bert
    from bert.config import read_yaml

    sentences = read_yaml(run / "config.yaml")["evaluation"]["sentences"]
    answers = bert.fill_mask(str(run), sentences, top_k=4)
    words = (
        " · ".join(f"{one['token_str']} {_percent(one['score'])}" for one in answer) for answer in answers
    )
    return list(zip(sentences, words, strict=True))


def _last_line(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8").splitlines()[-1])


def _results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def main(argv: Sequence[str]) -> None:
    if len(argv) != 3:
        raise UserError("usage: python demo/screen.py PRETRAINED FINE_TUNED WITHOUT_PRETRAINING")
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.rule()
    for style, text in lines(*map(Path, argv)):
        console.print(text, style=style or None, markup=False)


if __name__ == "__main__":
    sys.exit(run_command(main))
