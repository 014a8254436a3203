"""A trial of a recipe: trains it, measures it as `time_to_quality.py` does, and adds a line to `recipes/trials.jsonl`.

    python benchmarks/trials.py FILES --name NAME --minutes 10 [--seed 1] [--recipe RECIPE] [--set key=value ...]
    python benchmarks/trials.py FILES --name NAME --steps 1000 [--pairs FILES] [--work DIR] [--note TEXT]

With `--steps` the result does not depend on what else the machine does, but says nothing of time; `cpu_seconds` then
tells what it cost. A line has the settings that differ from the recipe, the losses over the run and those at its end.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from quality_sides import Ours
from time_to_quality import ROOT, Comparison

TRIALS = Path(__file__).parent / "recipes" / "trials.jsonl"


def trial(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    comparison = Comparison(arguments.files, work, arguments.pairs)
    words = [f"corpus.files={json.dumps(arguments.files)}", *arguments.set]
    side = Ours(arguments.recipe, words, comparison.store, comparison.tokenizer_folder, arguments.seed)
    folder = work / f"{arguments.name}-{arguments.seed}"
    seconds = 60 * arguments.minutes if arguments.minutes else None
    snapshots = side.train(folder, seconds=seconds, steps=arguments.steps)
    return {
        "name": arguments.name,
        "recipe": arguments.recipe.name,
        "settings": arguments.set,
        "seed": arguments.seed,
        "minutes": arguments.minutes,
        "text_mb": round(sum(Path(file).stat().st_size for file in arguments.files) / 1e6, 1),
        "cpu_seconds": round(side.cpu_seconds),
        **comparison.measured(snapshots),
        **({"note": arguments.note} if arguments.note else {}),
    }


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("files", nargs="+", help="the text, as corpus.files")
    options.add_argument("--name", required=True)
    options.add_argument("--recipe", type=Path, default=ROOT / "benchmarks/recipes/as-tuned.yaml")
    options.add_argument("--seed", type=int, default=1)
    length = options.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    options.add_argument("--set", nargs="*", default=[], metavar="key=value")
    options.add_argument("--pairs", nargs="*", default=[], help="files of minimal pairs, as BLiMP's")
    options.add_argument("--work", type=Path, help="folder of the runs; by default a temporary one")
    options.add_argument("--trials", type=Path, default=TRIALS, help="file that gets the line")
    options.add_argument("--note", help="what else is to be known of it")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = trial(arguments, arguments.work or Path(temporary))
    with arguments.trials.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(f"{arguments.name}: {result['loss']:.3f}, {100 * result['accuracy']:.1f} %")


if __name__ == "__main__":
    main()
