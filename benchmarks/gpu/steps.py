"""A training step on one GPU, ours beside transformers' `Trainer`, at several lengths.

    python benchmarks/gpu/steps.py --model bert-base [--lengths 512 1024 128 8192] [--seconds 60]

BERT reads pairs of sentences, ModernBERT full sentences. All sides have the same weights and examples, of random
tokens. Each side is a process of its own and has the size of micro-batches with which it is fastest:

  ours                 bf16, packed
  Trainer as shipped   the defaults of TrainingArguments: fp32, 8 sequences a step; padded to the longest of them
  Trainer tuned        bf16, FlashAttention where it is installed, else SDPA, grouped by length, two workers

and at the first length, if time is left, ours and the tuned Trainer with torch.compile, layer by layer for the latter.
The share of the peak is that of a large bf16 matrix product, measured, for the operations of the real tokens alone.
"""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import sides
import torch
from counting import counted_by_torch, step_flops
from measuring import Side, matmul_rate, write_row
from pairs import DEVICE, STEPS, Batch, Data, examples, make_store, padded
from profiling import kernel_times, kind_of_kernel, shares

from bert import checkpoint
from bert.config import load
from bert.model.config import EncoderConfig
from bert.model.models import build
from bert.training.tracking import peak_memory

CONFIGS = Path(__file__).parents[2] / "configs/model"
LENGTHS = (512, 1024, 128, 8192)
"""the one with a compiler first"""
SHIPPED_BATCH = 8
DISAGREEMENT = 0.01
"""relative difference of two losses from which on sides do not compute the same; ours may multiply in TF32"""
LONGEST = 20
"""kernels that a profile names"""
FOR_COMPILERS = 45
"""seconds below which there is no time for the compiled sides"""


@dataclass(frozen=True)
class Sizes:
    """How much work there is."""

    tokens: int = 65_536
    """of a step"""
    micro_tokens: tuple[int, ...] = (16_384, 32_768, 65_536)
    seconds: float = 2.0
    """of measuring a side at a length"""
    product: int = 8192
    """width of the matrices of the peak"""
    compiler: str = "inductor"


TINY = Sizes(tokens=256, micro_tokens=(128,), seconds=0.01, product=128, compiler="aot_eager")
TINY_MODEL = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "intermediate_size": 48}


class Measured:
    """A side: it measures itself at a length, with the best size of micro-batches."""

    def measure(self, data: Data, sizes: Sequence[int], seconds: float) -> dict[str, Any]:
        """Tokens a second and the peak of memory, or the problem."""
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        speeds = {size: self._speed_or_none(data, size, seconds / 4) for size in sizes if len(sizes) > 1}
        fitting = {size: speed for size, speed in speeds.items() if speed} or dict.fromkeys(sizes, 1.0)
        best = max(fitting, key=fitting.__getitem__)
        speed = self._speed_or_none(data, best, seconds)
        if speed is None:
            return {"problem": "out of memory"}
        return {"micro_tokens": best, "tokens_per_second": round(speed), "peak_bytes": peak_memory(DEVICE)}

    def _speed_or_none(self, data: Data, size: int, seconds: float) -> float | None:
        """Tokens a second; None if they do not fit into the memory of the GPU."""
        try:
            return self.speed(data, size, seconds)
        except torch.OutOfMemoryError:
            pass
        gc.collect()
        torch.cuda.empty_cache()
        return None

    def speed(self, data: Data, size: int, seconds: float) -> float:
        raise NotImplementedError


class Ours(sides.Ours, Measured):
    """The training loop of this repository."""

    def __init__(self, weights: Path, data: Data, compiler: str | None) -> None:
        super().__init__(weights, data)
        if compiler:
            self.stepper.model.compile(backend=compiler)

    def speed(self, data: Data, size: int, seconds: float) -> float:
        self.data = data
        self.prepare(size)
        self.step(0)
        taken, tokens, turn = 0.0, 0, 1
        while taken < seconds:
            taken += self.step(turn)
            tokens += self.steps[turn % STEPS].counts["tokens"]
            turn += 1
        return tokens / taken

    def peak_rate(self, size: int) -> float:
        return matmul_rate("bfloat16", size)

    def profile(self, data: Data, size: int) -> dict[str, Any]:
        """Where the time of a step goes: by kinds, and on a GPU the kernels that take most and how long it idles."""
        self.data = data
        self.prepare(size)
        seconds = [self.step(turn) for turn in range(STEPS)][-1]
        found: dict[str, Any] = {"seconds": seconds, "kinds": shares(lambda: self.step(0))}
        if DEVICE == "cuda":
            kernels = kernel_times(lambda: self.step(STEPS - 1))
            found["idle"] = 1 - sum(time for _, time, _ in kernels) / 1e6 / seconds
            found["launches"] = sum(count for *_, count in kernels)
            found["kernels"] = [
                {
                    "kernel": name[:120],
                    "kind": kind_of_kernel(name),
                    "milliseconds": time / 1e3,
                    "launches": count,
                }
                for name, time, count in kernels[:LONGEST]
            ]
        return found


class WithTrainer(Measured):
    """transformers' model in its `Trainer`."""

    def __init__(self, weights: Path, data: Data, settings: Mapping[str, Any], compiler: str | None) -> None:
        import transformers

        transformers.logging.disable_progress_bar()
        config = transformers.AutoConfig.from_pretrained(weights)
        attention = {"attn_implementation": best_attention()} if settings else {}
        self.model = getattr(transformers, config.architectures[0]).from_pretrained(weights, **attention)
        self.model.to(DEVICE)
        self.data, self.settings = data, dict(settings)
        if compiler:  # accelerate compiles one layer for all, which takes seconds instead of minutes
            self.settings |= {"torch_compile": True, "torch_compile_backend": compiler}
            os.environ["ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION"] = "true"

    def loss(self) -> float:
        return sides.loss_of(self.model, padded(next(step_rows(self.data))[:8]))

    def speed(self, data: Data, size: int, seconds: float) -> float:
        micro_batch = min(max(1, size // data.length), data.sequences)
        sequences = data.sequences if self.settings else micro_batch
        steps = [
            rows[at : at + sequences] for rows in step_rows(data) for at in range(0, len(rows), sequences)
        ]
        if self.settings:
            steps = [sorted(rows, key=lambda row: len(row["input_ids"])) for rows in steps]
        tokens = [sum(len(row["input_ids"]) for row in rows) for rows in steps]
        warm_up = 3 if "torch_compile" in self.settings else 1
        times = self._train([row for rows in steps for row in rows], sequences, micro_batch, warm_up, seconds)
        read = sum(tokens[(warm_up + turn) % len(tokens)] for turn in range(len(times)))
        return read / sum(times)

    def _train(
        self, rows: list[Batch], sequences: int, micro_batch: int, warm_up: int, seconds: float
    ) -> list[float]:
        """Seconds of each step after the warm-up. Rows are read in their order."""
        import transformers

        class InOrder(transformers.Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                max_steps=warm_up + 1000,
                per_device_train_batch_size=micro_batch,
                gradient_accumulation_steps=sequences // micro_batch,
                use_cpu=DEVICE == "cpu",
                remove_unused_columns=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **self.settings,
            )
            clock = make_clock(warm_up, seconds)
            collate = partial(padded, device="cpu")
            InOrder(
                self.model, arguments, train_dataset=rows, data_collator=collate, callbacks=[clock]
            ).train()
        self.model.zero_grad(set_to_none=True)
        return clock.times


def make_clock(warm_up: int, seconds: float) -> Any:
    """A callback that times whole steps and ends the training after so many seconds."""
    import transformers

    class Clock(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.before = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if state.global_step > warm_up:
                self.times.append(now - self.before)
            self.before = now
            control.should_training_stop = sum(self.times) >= seconds

    return Clock()


def best_attention() -> str:
    """What a user who tunes the Trainer chooses."""
    from transformers.utils import is_flash_attn_2_available

    return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"


def step_rows(data: Data) -> Iterator[list[Batch]]:
    """The examples of some steps, all of a step in one micro-batch without padding."""
    return (list(examples(step)) for step in replace(data, static_shapes=False).steps(2**30))


def flops_per_token(config: EncoderConfig, data: Data) -> float:
    flops = tokens = 0.0
    for rows in step_rows(data):
        lengths = [len(row["input_ids"]) for row in rows]
        predicted = sum(int((row["labels"] != -100).sum()) for row in rows)
        flops += step_flops(config, lengths, predicted, data.pairs)
        tokens += sum(lengths)
    return flops / tokens


class Model:
    """A model of configs/model, its weights on the disk and the data that it reads."""

    def __init__(self, name: str, lengths: Sequence[int], tiny: bool, folder: Path) -> None:
        self.name, self.pairs, self.lengths = name, not name.startswith("modern"), lengths
        self.sizes = TINY if tiny else Sizes()
        self.architecture = "PretrainingModel" if self.pairs else "MaskedLanguageModel"
        config = load(EncoderConfig, CONFIGS / f"{name}.yaml")
        self.config = replace(config, max_positions=max(lengths), **(TINY_MODEL if tiny else {}))
        store = make_store(folder, 4000 if tiny else 400_000, document=1000.0)
        self.data = [
            Data(*store, max(1, self.sizes.tokens // length), length, self.pairs) for length in lengths
        ]
        self.weights = folder / name
        torch.manual_seed(0)
        checkpoint.save(build(self.config, self.architecture), self.weights)

    def about(self, data: Data) -> dict[str, Any]:
        what = "pairs" if self.pairs else "full sentences"
        return {"model": self.name, "length": data.length, "examples": what, "sequences": data.sequences}

    def check_count(self) -> dict[str, Any]:
        """Our count of operations beside torch's, on two layers of the model without windows."""
        config = replace(self.config, num_layers=2, layer_pattern="G", backend="eager")
        length = min(64, *self.lengths)
        ours = step_flops(config, [length, length], 10, self.pairs)
        counted = counted_by_torch(config, length, 10, self.pairs, DEVICE)
        return {"model": self.name, "check": "operations", "ours": ours, "torch": counted}


TUNED = {"bf16": True, "logging_nan_inf_filter": False}


def makers(model: Model) -> dict[str, Callable[..., Side]]:
    workers = {} if model.sizes is TINY else {"dataloader_num_workers": 2}
    given = model.weights, model.data[0]
    return {
        "ours": partial(Side, Ours, *given),
        "Trainer as shipped": partial(Side, WithTrainer, *given, {}),
        "Trainer tuned": partial(Side, WithTrainer, *given, TUNED | workers),
    }


@contextmanager
def started(make: Mapping[str, Callable[..., Side]], compiler: str | None) -> Iterator[dict[str, Side]]:
    """Sides that start at the same time."""
    running = {name: start(compiler) for name, start in make.items()}
    try:
        yield running
    finally:
        for side in running.values():
            side.close()


def measure(model: Model, end: float, write: Callable[[Mapping[str, Any]], None]) -> None:
    write(model.check_count())
    make, sizes = makers(model), model.sizes
    with started(make, None) as running:
        losses = {name: side("loss") for name, side in running.items()}
        spread = max(losses.values()) / min(losses.values()) - 1
        write({"model": model.name, "check": "loss", "agree": spread < DISAGREEMENT, "losses": losses})
        peak = running["ours"]("peak_rate", sizes.product)
        write({"model": model.name, "matmul_flops_per_second": peak})
        for data in model.data:
            for name, side in running.items():
                write(row(model, data, name, side, peak))
    if end - time.monotonic() > FOR_COMPILERS or sizes is TINY:
        chosen = {name: make[name] for name in ("ours", "Trainer tuned")}
        with started(chosen, sizes.compiler) as running:
            for name, side in running.items():
                data = replace(model.data[0], static_shapes=name == "ours")
                write(row(model, data, f"{name}, compiled", side, peak))


def row(model: Model, data: Data, name: str, side: Side, peak: float) -> dict[str, Any]:
    sizes = model.sizes
    micro = (SHIPPED_BATCH * data.length,) if name == "Trainer as shipped" else sizes.micro_tokens
    found = side("measure", data, micro, sizes.seconds)
    if "tokens_per_second" in found:
        found["mfu"] = found["tokens_per_second"] * flops_per_token(model.config, data) / peak
    return {**model.about(data), "side": name, **found}


def profile(model: Model, write: Callable[[Mapping[str, Any]], None]) -> None:
    with started({"ours": makers(model)["ours"]}, None) as running:
        for data in model.data:
            found = running["ours"]("profile", data, model.sizes.micro_tokens[-1])
            write({**model.about(data), "profile": found})


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="bert-base", help="a name in configs/model")
    options.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    options.add_argument("--seconds", type=float, default=60.0, help="how long this may take")
    options.add_argument("--profile", action="store_true", help="show where our time goes instead")
    options.add_argument("--rows", type=Path, help="file of the results, a JSON object a line")
    options.add_argument("--tiny", action="store_true", help="a small model, to try this program")
    arguments = options.parse_args()
    end = time.monotonic() + arguments.seconds
    write = partial(write_row, arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        model = Model(arguments.model, arguments.lengths, arguments.tiny, Path(folder))
        if arguments.profile:
            profile(model, write)
        else:
            measure(model, end, write)


if __name__ == "__main__":
    main()
