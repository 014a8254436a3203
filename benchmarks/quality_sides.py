"""The sides of `time_to_quality.py`: transformers' models in a loop of their own, and runs of this repository.

Each side leaves snapshots, which are Hugging Face folders, and the seconds of training at each of them.
"""

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LENGTH = 128
SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
MODELS = {
    "bert": ("BertForMaskedLM", {**SHAPE, "intermediate_size": 1024}),
    "modernbert": ("ModernBertForMaskedLM", {**SHAPE, "intermediate_size": 640, "sparse_prediction": True}),
}


@dataclass(frozen=True)
class Snapshot:
    path: str
    seconds: float
    """of training, without the time that snapshots take"""
    step: int
    tokens: int


@dataclass(frozen=True)
class Recipe:
    """How transformers' model is trained."""

    model: str = "modernbert"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    sequences: int = 16
    """a step"""
    bf16: bool = True
    masks: tuple[float, float] = (0.3, 0.15)
    """masking rate at the first and the last step"""
    warmup: float = 0.05
    cooldown: float = 0.3
    """of a warm-up, stable, decay schedule; 0.95 after a warm-up of 0.05 is a linear decay"""
    compile: bool = False
    keep_memory: bool = True
    """keep freed memory, the one setting of the environment that makes a difference on CPUs"""


RUN_MLM = Recipe("bert", 5e-4, (0.9, 0.999), 0.0, 8, False, (0.15, 0.15), 0.0, 1.0, keep_memory=False)
"""run_mlm.py as it is: Trainer's AdamW and linear decay, fp32, 8 blocks a step; with the best of five rates"""


class Theirs:
    """transformers' model, trained on full blocks of tokens for a given time."""

    def __init__(
        self, recipe: Recipe, blocks: Path, special: dict[str, int], vocab_size: int, seed: int
    ) -> None:
        import transformers

        if recipe.keep_memory:
            from bert.training.cpu_launch import keep_freed_memory

            keep_freed_memory()
        self.recipe, self.seed = recipe, seed
        self.blocks = np.load(blocks, mmap_mode="r")
        self.special, self.vocab_size = special, vocab_size
        torch.manual_seed(seed)
        name, shape = MODELS[recipe.model]
        model_class = getattr(transformers, name)
        ids = {f"{key}_token_id": value for key, value in special.items() if key in ("pad", "cls", "sep")}
        ids |= {"bos_token_id": special["cls"], "eos_token_id": special["sep"]}
        config = model_class.config_class(
            vocab_size=vocab_size, max_position_embeddings=512, attn_implementation="sdpa", **shape, **ids
        )
        self.model = model_class(config).train()
        self.forward = torch.compile(self.model) if recipe.compile else self.model
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            fused=True,
        )

    def train(self, seconds: float, folder: Path, snapshots: int) -> list[Snapshot]:
        """Train for so many seconds; snapshots at equal distances, the last one at the end."""
        if self.recipe.compile:
            self._step(next(self._batches()), 0.0)  # compilation is not counted, in favour of this side
            self._restart()
        taken: list[Snapshot] = []
        spent, step = 0.0, 0
        batches = self._batches()
        while spent < seconds:
            begun = time.perf_counter()
            self._step(next(batches), spent / seconds)
            spent += time.perf_counter() - begun
            step += 1
            if spent >= seconds * (len(taken) + 1) / snapshots:
                path = folder / f"step-{step}"
                self.model.save_pretrained(path)
                taken.append(Snapshot(str(path), spent, step, step * self.recipe.sequences * LENGTH))
        return taken

    def _restart(self) -> None:
        torch.manual_seed(self.seed)
        self.model.init_weights()
        self.optimizer.state.clear()

    def _batches(self) -> Iterator[Tensor]:
        generator = np.random.default_rng(self.seed)
        while True:
            order = generator.permutation(len(self.blocks))
            for first in range(0, len(order) - self.recipe.sequences + 1, self.recipe.sequences):
                rows = np.sort(order[first : first + self.recipe.sequences])
                yield torch.from_numpy(self.blocks[rows].astype(np.int64))

    def _step(self, ids: Tensor, progress: float) -> None:
        recipe = self.recipe
        rate = recipe.learning_rate * min(
            progress / recipe.warmup if recipe.warmup else 1.0, (1.0 - progress) / recipe.cooldown, 1.0
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, labels = self._masked(ids, recipe.masks[0] + (recipe.masks[1] - recipe.masks[0]) * progress)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss = self.forward(input_ids=inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _masked(self, ids: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Inputs and labels: 80 % masks, 10 % random tokens, 10 % unchanged (Devlin et al. 2018)."""
        draw, kind = torch.rand(ids.shape), torch.rand(ids.shape)
        text = (ids != self.special["cls"]) & (ids != self.special["sep"])
        chosen = (draw < share) & text
        inputs = torch.where(chosen & (kind < 0.8), self.special["mask"], ids)
        random = torch.randint(5, self.vocab_size, ids.shape)
        inputs = torch.where(chosen & (kind >= 0.9), random, inputs)
        return inputs, torch.where(chosen, ids, -100)


class Ours:
    """`python -m pretrain RECIPE` on the given store."""

    def __init__(self, recipe: Path, words: list[str], store: Path, tokenizer: Path, seed: int) -> None:
        self.command = [sys.executable, "-m", "pretrain", str(recipe), f"seed={seed}"]
        self.command += [f"prepare.store={store}", f"tokenizer.path={tokenizer}", "tracking.wandb=off"]
        self.command += ["tokenizer.vocab_size=8192", *words]
        self.cpu_seconds = 0.0
        """of the last training"""

    def train(
        self, folder: Path, *, seconds: float | None = None, steps: int | None = None
    ) -> list[Snapshot]:
        """Snapshots cost this side the time of saving."""
        settings = {
            "run_dir": folder,
            "training.hours": "null" if seconds is None else seconds / 3600,
            "training.steps": "null" if steps is None else steps,
            "training.keep_last": 1000,
            "training.save_every": 100,
            "training.evaluate_every": 0,
        }
        command = [*self.command, *(f"{key}={value}" for key, value in settings.items())]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (folder.parent / f"{folder.name}.log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        taken = []
        for path in sorted((folder / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:])):
            run = json.loads((path / "training_state.json").read_text())["run"]
            taken.append(Snapshot(str(path), run["seconds"], run["step"], run["tokens"]))
        return taken


@torch.no_grad()
def held_out_loss(path: str, blocks: dict[str, Any]) -> tuple[float, float]:
    """Loss and accuracy at the masks of the held-out blocks, in fp32, in the better of two formats.

    `blocks` has `inputs` and `labels`, int64 (N, 128) with [CLS] first and [SEP] last. Some models were trained on
    blocks without these two, so they are also measured without.
    """
    from bert import checkpoint

    model = checkpoint.load(path, "MaskedLanguageModel", dtype=torch.float32)
    results = []
    for inputs, labels in (
        (blocks["inputs"], blocks["labels"]),
        (blocks["inputs"][:, 1:-1], blocks["labels"][:, 1:-1]),
    ):
        loss = correct = count = 0.0
        for first in range(0, len(inputs), 64):
            ids, wanted = (torch.from_numpy(x[first : first + 64]) for x in (inputs, labels))
            measured = model(ids, labels=wanted).losses["mlm"]
            loss += float(measured.sum)
            correct += float(measured.correct)
            count += float((wanted != -100).sum())
        results.append((loss / count, correct / count))
    return min(results)


def time_to(curve: list[tuple[float, float]], loss: float) -> float | None:
    """Seconds until a curve of (seconds, loss) first reaches a loss, between snapshots in a straight line."""
    before = (0.0, math.inf)
    for point in curve:
        if point[1] <= loss:
            if before[1] == math.inf:
                return point[0]
            share = (before[1] - loss) / (before[1] - point[1])
            return before[0] + share * (point[0] - before[0])
        before = point
    return None


def main() -> None:
    """In a process of its own: `python quality_sides.py SETTINGS.json`."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    recipe = Recipe(**{**settings["recipe"], "betas": tuple(settings["recipe"]["betas"])})
    side = Theirs(
        recipe, Path(settings["blocks"]), settings["special"], settings["vocab_size"], settings["seed"]
    )
    folder = Path(settings["folder"])
    folder.mkdir(parents=True)
    taken = side.train(settings["seconds"], folder, settings["snapshots"])
    (folder / "snapshots.json").write_text(json.dumps([asdict(one) for one in taken]))


if __name__ == "__main__":
    main()
