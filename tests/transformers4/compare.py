"""For `make check-transformers4`: load checkpoints with transformers 4, and compare with what we computed from them.

Runs in an environment that has transformers 4 and not this package. Prints a line for each checkpoint; exit code 1 if
outputs differ by more than 1e-5, a weight is missing or left over, or a tokenizer gives other ids.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-5


def compare(folder: Path) -> tuple[float, list[str]]:
    """The largest difference of an output, and what else is wrong."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    model, loading = model_class.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    wrong = [f"{what}: {', '.join(map(str, names))}" for what, names in loading.items() if names]
    tensors = load_file(folder / "expected.safetensors")
    batch = {k.removeprefix("input."): v for k, v in tensors.items() if k.startswith("input.")}
    real = batch["attention_mask"].bool()
    with torch.inference_mode():
        found = model.eval()(**batch)
    differences = []
    for name in [name for name in tensors if name.startswith("output.")]:
        theirs, ours = found[name.removeprefix("output.")], tensors[name]
        by_token = ours.shape[:2] == real.shape
        differences.append(float((theirs - ours).abs()[real if by_token else ...].max()))
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    ids = transformers.AutoTokenizer.from_pretrained(folder)(expected["texts"])["input_ids"]
    if ids != expected["ids"]:
        wrong.append("the tokenizer gives other ids")
    return max(differences), wrong


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, in float64")
    passed = True
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        difference, wrong = compare(folder)
        good = difference <= TOLERANCE and not wrong
        passed &= good
        print(
            f"{'same' if good else 'DIFFERENT':9}  {difference:8.1e}  {folder.name}{''.join(f'; {w}' for w in wrong)}"
        )
    sys.exit(not passed)
