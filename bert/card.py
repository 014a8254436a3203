"""The model card, README.md of a checkpoint: what both applications write into it, and what users give for it."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bert.files import write_text

if TYPE_CHECKING:
    import torch
    from huggingface_hub import EvalResult

    from bert.model.models import Model

CARD = "README.md"
PLACE = "PATH OF THIS FOLDER"
EXPORTED = "PATH OF THE ONNX FOLDER"
LICENSES = Path(__file__).with_name("licenses.txt")
"""identifiers that the Hugging Face hub accepts (huggingface.co/docs/hub/repositories-licenses)"""
LANGUAGES = Path(__file__).with_name("languages.txt")
"""ISO 639: the codes of two letters with their names, then those of three letters"""
SPECIAL_LANGUAGES = {"multilingual": "several languages", "code": "programming languages"}


@dataclass(frozen=True)
class CardConfig:
    name: str | None = None
    """name of the model in its card; by default that of the run's folder"""
    license: str | None = None
    """license of the model, as the Hugging Face hub calls it: apache-2.0, mit, cc-by-sa-4.0, …; or other"""
    license_name: str | None = None
    """with license=other: what the license is called"""
    language: list[str] = field(default_factory=list)
    """languages of the texts, as codes of ISO 639 (en, de, yue), or multilingual, or code"""
    datasets: list[str] = field(default_factory=list)
    """datasets of the hub that it was trained on; those that the configuration itself names are added"""
    base_model: str | None = None
    """model of the hub that it was made from, OWNER/NAME"""
    tags: list[str] = field(default_factory=list)
    """further words by which it is found on the hub"""

    def __post_init__(self) -> None:
        known = LICENSES.read_text(encoding="utf-8").split()
        if self.license is not None and self.license not in known:
            near = _near(self.license.lower(), known) or "; name another as license=other license_name=…"
            raise ValueError(f"license: {self.license!r} is no license that the Hugging Face hub knows{near}")
        if self.license == "other" and self.license_name is None:
            raise ValueError("license: other needs a name; give it as license_name=…")
        if self.license != "other" and self.license_name is not None:
            raise ValueError("license_name: is only for license=other; leave it out")
        for code in self.language:
            if code not in known_languages():
                raise ValueError(f"language: {code!r} is no code of ISO 639{_near_language(code)}")
        for name in [*self.datasets, *filter(None, [self.base_model])]:
            if not re.fullmatch(r"([\w.-]+/)?[\w.-]+", name):
                key = "base_model" if name == self.base_model else "datasets"
                raise ValueError(
                    f"{key}: {name!r} is no name on the Hugging Face hub; there it is OWNER/NAME"
                )


def known_languages() -> dict[str, str]:
    """Code → name of the language; a code of three letters stands for itself."""
    named, _, others = LANGUAGES.read_text(encoding="utf-8").partition("\n\n")
    names = dict(line.split(" ", 1) for line in named.splitlines())
    return {**{code: code for code in others.split()}, **names, **SPECIAL_LANGUAGES}


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=2)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _near_language(word: str) -> str:
    """The code of the language of this name, or of a similar one."""
    codes = {name.lower(): code for code, name in known_languages().items() if name != code}
    found = difflib.get_close_matches(word.lower(), codes, n=1)
    if found:
        return f" (did you mean {codes[found[0]]}?)"
    return "; give codes such as en, de, zh or yue, or multilingual"


def render(
    config: CardConfig,
    model: "Model",
    name: str,
    text: str,
    *,
    pipeline: str,
    tags: Sequence[str],
    datasets: Sequence[str] = (),
    results: Sequence["EvalResult"] = (),
) -> str:
    """A model card: the metadata that the hub reads, then a title and `text`."""
    from huggingface_hub import ModelCardData

    from bert.huggingface import NATIVE

    model_type = _model_type(model)
    name = config.name or name
    data = ModelCardData(
        language=config.language or None,
        license=config.license,
        license_name=config.license_name,
        library_name=NATIVE if model_type == NATIVE else "transformers",
        pipeline_tag=pipeline,
        base_model=config.base_model,
        datasets=list(dict.fromkeys([*config.datasets, *datasets])) or None,
        tags=[model_type, *tags, *config.tags],
        model_name=name if results else None,
        eval_results=list(results) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{text}"


def _model_type(model: "Model") -> str:
    """What the hub calls the architecture."""
    from bert.huggingface import NATIVE, family_of

    family = family_of(model.config, model.architecture)
    return NATIVE if family is None else family.model_type


def hub_datasets(places: Iterable[str]) -> list[str]:
    """The datasets of the hub among the places of a corpus, hf://datasets/OWNER/NAME/…"""
    found = (re.match(r"hf://datasets/([\w.-]+/[\w.-]+)", place) for place in places)
    return list(dict.fromkeys(match[1] for match in found if match))


def add_results(folder: Path, heading: str, text: str, results: Sequence["EvalResult"]) -> bool:
    """Put a section, and what was measured, into the card of a folder, in the place of what it had by that heading and
    of that task; False if the folder has no card of ours."""
    from huggingface_hub import ModelCard

    path = folder / CARD
    if not path.is_file() or "## Recipe\n" not in path.read_text(encoding="utf-8"):
        return False
    card = ModelCard(path.read_text(encoding="utf-8"))
    tasks = {result.task_type for result in results}
    kept = [result for result in card.data.eval_results or [] if result.task_type not in tasks]
    card.data.model_name = card.data.model_name or card.text.partition("\n# ")[2].partition("\n")[0]
    card.data.eval_results = [*kept, *results]
    body = re.sub(rf"^## {re.escape(heading)}\n.*?(?=^## )", "", card.text, flags=re.M | re.S)
    before, _, after = body.partition("## Recipe\n")
    card.text = f"{before}## {heading}\n\n{text}\n\n## Recipe\n{after}"
    write_text(path, str(card))
    return True


def hardware(device: "torch.device", processes: int) -> str:
    """What a training runs on, in a few words."""
    if device.type == "cuda":
        import torch

        return f"{processes} × {torch.cuda.get_device_name(device)}"
    return f"{os.cpu_count()} CPU cores ({processes} process{'es' if processes > 1 else ''})"


def compute(seconds: float, flops: float | None, hardware: str, precision: str) -> str:
    """A sentence on what a training has taken; `flops` is None if nobody has counted from the beginning."""
    work = "" if flops is None else f", {flops:.2g} floating-point operations (FLOP) in matrix products"
    return f"Training took {seconds / 3600:.3g} hours on {hardware}, in {precision}{work}."


def by_pipeline(task: str, call: str) -> str:
    """How transformers' pipeline of a task is loaded and called, as Python."""
    return f'from transformers import pipeline\n\nmodel = pipeline("{task}", "{PLACE}")\nmodel({call})'


def loading(model: "Model", theirs: str, ours: str) -> str:
    """How to load the folder of a model, in a few lines for each library. `theirs` are those for transformers,
    `ours` one for this package, as Python."""
    from bert.huggingface import NATIVE, obstacles

    snippets = dict(_SNIPPETS)
    note = ""
    if _model_type(model) == NATIVE:
        snippets = {name: text for name, text in snippets.items() if name == _THIS}
        why = obstacles(model.config, model.architecture)
        note = f"transformers has no architecture that computes the same: {why}.\n\n"
    given = {"place": PLACE, "exported": EXPORTED, "theirs": theirs, "ours": ours}
    blocks = [f"{name}:\n\n```python\n{text.format(**given)}\n```" for name, text in snippets.items()]
    return note + "\n\n".join(blocks)


_THIS = "This package, bert-pretraining"
_SNIPPETS = {
    "transformers": "{theirs}",
    "sentence-transformers": """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{place}")
model.encode(["a text", "another"])""",
    _THIS: """\
import bert

{ours}
bert.embed("{place}", ["a text", "another"])""",
    "ONNX, from the folder that `bert export FOLDER onnx` writes": """\
import onnxruntime, transformers

tokens = transformers.AutoTokenizer.from_pretrained("{exported}")("a text", return_tensors="np")
session = onnxruntime.InferenceSession("{exported}/onnx/model.onnx")
session.run(None, {{each.name: tokens[each.name] for each in session.get_inputs()}})""",
}
