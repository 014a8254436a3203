"""Pretraining from text to a folder that `transformers` loads, told as a recipe."""

import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bert import checkpoint
from bert import config as configuration
from bert.errors import UserError
from bert.model import models
from bert.model.config import EncoderConfig
from bert.model.models import MaskedLanguageModel, PretrainingModel
from bert.tokenizer import Tokenizer
from bert.training import schedules
from bert.training.launch import make_accelerator, on_main_process
from bert.training.progress import Result
from bert.training.run import open_run
from bert.training.state import Checkpoint
from bert.training.trainer import Trainer, find_start
from pretrain.card import model_card
from pretrain.config import PretrainConfig
from pretrain.data.collator import EvaluationBatches, StepBatches
from pretrain.heldout import HeldOut
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer

if TYPE_CHECKING:
    from accelerate import Accelerator

FREE_KEYS = ("model.backend", "model.gradient_checkpointing", "evaluation.*", "prepare.*")
"""Keys of ours that may change when a run is continued."""


def train(config: PretrainConfig) -> Result:
    """Carry out a run, or what is left of it; it leaves RUN/model."""
    check_lengths(config)
    accelerator = make_accelerator(config.training)
    on_main_process(accelerator, lambda: prepare(config))
    start = find_start(accelerator, config)
    tokenizer_path, store = tokenizer_folder(config), store_folder(config)
    tokenizer = Tokenizer.load(tokenizer_path)
    steps = run_steps(config, store, tokenizer_path)
    processes = accelerator.process_index, accelerator.num_processes
    source = StepBatches(
        store,
        tokenizer_path,
        config.objective,
        config.batch,
        config.seed,
        steps,
        *processes,
        folder=Path(config.run_dir) / "plan",
    )
    on_main_process(accelerator, lambda: source.examples(0))  # counts the examples, once for all processes
    torch.manual_seed(config.seed)
    model = build_model(config, tokenizer, start)
    trainer = Trainer(
        config,
        accelerator,
        model,
        source,
        steps=steps,
        tokenizer=tokenizer,
        card=partial(model_card, config, model, tokenizer, store),
        evaluate=held_out(config, accelerator, tokenizer),
        start=start,
    )
    result = trainer.train()
    if not result.interrupted:
        on_main_process(accelerator, lambda: finish(config, result))
    return result


def prepare(config: PretrainConfig) -> None:
    """The run's folder, its tokenizer and its store, each made where it is missing."""
    open_run(config, FREE_KEYS)
    if config.model.from_ is not None and config.tokenizer.from_ is None:
        take_tokenizer(config, config.model.from_)
    ensure_tokenizer(config)
    ensure_store(config)


def take_tokenizer(config: PretrainConfig, source: str) -> None:
    """Keep the tokenizer of the checkpoint to go on from, with new words if there are to be any."""
    folder = tokenizer_folder(config)
    if not (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.load(checkpoint.resolve(source))
        if config.model.new_words is not None:
            tokenizer = add_words(tokenizer, Path(config.model.new_words))
        tokenizer.save(folder)


def tokenizer_folder(config: PretrainConfig) -> Path:
    return Path(config.tokenizer.path or Path(config.run_dir) / "tokenizer")


def store_folder(config: PretrainConfig) -> Path:
    return Path(config.prepare.store or Path(config.run_dir) / "store")


def check_lengths(config: PretrainConfig) -> None:
    """UserError if the model has no position for a batch's longest sequence."""
    longest = max(config.batch.max_length, *(phase.max_length or 0 for phase in config.batch.phases), 0)
    if config.model.from_ is None and longest > config.model.max_positions:
        raise UserError(
            f"batch.max_length: is {longest}, but the model reads {config.model.max_positions} tokens; "
            "raise model.max_positions or shorten the sequences"
        )


def run_steps(config: PretrainConfig, store: Path, tokenizer: Path) -> int | None:
    """The length of the run in steps, as far as it is measured in them."""
    epoch = None
    if config.training.epochs is not None:
        plain = replace(config.objective, mask_prob=0.15), replace(config.batch, phases=())
        epoch = StepBatches(store, tokenizer, *plain, config.seed, None).steps_per_epoch
    return schedules.num_steps(config.training, epoch)


def build_model(config: PretrainConfig, tokenizer: Tokenizer, start: Checkpoint | None) -> MaskedLanguageModel:
    """A new model, or one with the weights of a checkpoint: of this run, or of another to go on from."""
    architecture = MaskedLanguageModel if config.objective.pairing == "none" else PretrainingModel
    own = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
    if config.model.from_ is None:
        values = {field.name: getattr(config.model, field.name) for field in fields(EncoderConfig)}
        model = models.build(EncoderConfig(**{**values, **own}), architecture.__name__)
    else:
        model = continue_from(config.model.from_, architecture, own, config, tokenizer)
    if start is not None:
        model.load_state_dict(checkpoint.load(start.path, dtype=torch.float32).state_dict())
    return model.train()


def continue_from(
    path: str, architecture: type[MaskedLanguageModel], own: Mapping[str, Any], config: PretrainConfig, tokenizer: Tokenizer
) -> MaskedLanguageModel:
    """The model of a checkpoint; heads that it lacks, and tokens that its tokenizer lacked, begin afresh."""
    changeable = ("dropout", "attention_dropout", "backend", "gradient_checkpointing", "pad_vocab_multiple")
    overrides = {name: getattr(config.model, name) for name in changeable}
    model = checkpoint.load(path, architecture, overrides=overrides, dtype=torch.float32)
    assert isinstance(model, MaskedLanguageModel)
    before = Tokenizer.load(checkpoint.resolve(path))
    if before.digest == tokenizer.digest:
        return model
    fitted = models.build(replace(model.config, **own), architecture.__name__)
    assert isinstance(fitted, MaskedLanguageModel)
    fitted.load_state_dict(fit_vocabulary(model.state_dict(), fitted, before, tokenizer))
    return fitted


def held_out(config: PretrainConfig, accelerator: "Accelerator", tokenizer: Tokenizer) -> HeldOut | None:
    """What evaluates the run; None where no text was held out."""
    batches = EvaluationBatches(
        store_folder(config),
        tokenizer_folder(config),
        config.objective,
        config.batch,
        accelerator.process_index,
        accelerator.num_processes,
        sequences=config.evaluation.sequences,
    )
    if not len(batches):
        return None
    total = partial(accelerator.reduce, reduction="sum")
    return HeldOut(batches, tokenizer, config.evaluation.sentences, accelerator.device, total)


def finish(config: PretrainConfig, result: Result) -> None:
    """The last checkpoint, without what only training needs, as the finished model; verified by reading it back."""
    run_dir = Path(config.run_dir)
    last = run_dir / "checkpoints" / f"step-{result.step}"
    with replacing(run_dir / "model", owned=[checkpoint.CONFIG]) as aside:
        for file in last.iterdir():
            if file.name not in (OPTIMIZER, STATE, manifest.MANIFEST):
                shutil.copyfile(file, aside / file.name)
    verify(run_dir / "model")
    print(f"the finished model is {run_dir / 'model'}", flush=True)
'''
/work/venv/bin/python - <<'E'
p='/work/main/pretrain/train.py'; s=open(p).read()
s=s.replace('''    if start is not None:
        model.load_state_dict(checkpoint.load(start.path, dtype=torch.float32).state_dict())
    return model.train()
''','''    if start is not None:
        padding = {"pad_vocab_multiple": model.config.pad_vocab_multiple}
        saved = checkpoint.load(start.path, architecture, overrides=padding, dtype=torch.float32)
        model.load_state_dict(saved.state_dict())
    return model.train()
''')
s=s.replace("from bert import config as configuration\n","").replace("from bert.errors import UserError\n","from bert.errors import UserError\nfrom bert.files import replacing\n")
s=s.replace("from bert.training import schedules\n","from bert.training import manifest, schedules\n").replace("from bert.training.state import Checkpoint\n","from bert.training.state import OPTIMIZER, STATE, Checkpoint\n").replace("from bert.training.trainer import Trainer, find_start\n","from bert.training.trainer import Trainer, find_start\nfrom bert.verification import verify\n").replace("from pretrain.tokenizer import ensure_tokenizer\n","from pretrain.tokenizer import ensure_tokenizer\nfrom pretrain.vocabulary import add_words, fit_vocabulary\n")
open(p,'w').write(s)
p='/work/main/pretrain/vocabulary.py'; s=open(p).read()
i=s.index("@torch.no_grad()"); j=s.index("def _pieces")
s=s[:i]+'''@torch.no_grad()
def fit_vocabulary(
    weights: Mapping[str, Tensor], model: nn.Module, before: Tokenizer, after: Tokenizer
) -> dict[str, Tensor]:
    """Weights for `model`, whose tokenizer is `after`, from those of a model whose tokenizer was `before`.

    Only what has a row for each token differs. A token that both know keeps its row. A new one begins as the mean of
    the rows of the pieces that stood for it (Hewitt 2021), so that the model reads it much as it read the pieces.
    """
    pieces = _pieces(before, after)
    fitted = dict(weights)
    for name, shaped in model.state_dict().items():
        if shaped.shape != weights[name].shape:
            fitted[name] = torch.zeros_like(shaped)
            for token, ids in enumerate(pieces):
                fitted[name][token] = weights[name][ids].mean(0)
    return fitted


'''+s[j:]
s=s.replace('''    known = before.backend.get_vocab()
    marker = "##"
    pieces = []
    for token in after.tokens(list(range(after.vocab_size))):
        if token in known:
            pieces.append([known[token]])
            continue
        ids = before.encode_batch([token.removeprefix(marker)], special_tokens=False)[0]
        pieces.append(ids or [before.mask_id])
    return pieces
''','''    known = before.backend.get_vocab()
    tokens = after.tokens(range(after.vocab_size))
    texts = [after.decode([id]).strip().removeprefix("##") for id in range(after.vocab_size)]
    spelled = before.encode_batch(texts, special_tokens=False)
    return [
        [known[token]] if token in known else ids or [before.mask_id] for token, ids in zip(tokens, spelled, strict=True)
    ]
''')
s=s.replace("from pathlib import Path\n\nimport torch","from collections.abc import Mapping\nfrom pathlib import Path\n\nimport torch").replace("from torch import Tensor\n","from torch import Tensor, nn\n").replace("from bert.model.models import MaskedLanguageModel\n","")
open(p,'w').write(s)
p='/work/main/pretrain/config.py'; s=open(p).read()
s=s.replace('''    """checkpoint to go on from (continued pretraining): its shape counts, of the keys here only dropout and backend do"""
''','''    """checkpoint to go on from (continued pretraining): its shape and its tokenizer, unless tokenizer.from names another;
    of the keys above dropout, attention_dropout, backend, gradient_checkpointing and pad_vocab_multiple still count"""
    new_words: str | None = None
    """with from: a file of words, one a line, that become tokens; each begins as the mean of its pieces"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.new_words is not None and self.from_ is None:
            raise ValueError("new_words: are added to the vocabulary of model.from; name a checkpoint there")
''')
open(p,'w').write(s)
