"""The files from which sentence-transformers and text-embeddings-inference read how a checkpoint embeds texts.

    modules.json                the parts of the embedding: the encoder, then the pooling
    1_Pooling/config.json       how one vector is made from those of all tokens
    sentence_bert_config.json   the longest text, in tokens

Without them a folder has several embeddings: sentence-transformers takes the mean of all tokens, and
text-embeddings-inference the first token.
"""

import json
from pathlib import Path
from typing import Any

from bert.model.config import EMBEDDING_POOLING, EncoderConfig

MODULES = "modules.json"
POOLING = "1_Pooling"
LENGTHS = "sentence_bert_config.json"
FILES = (MODULES, POOLING, LENGTHS, "config_sentence_transformers.json")
"""what belongs to these readers in the folder of a checkpoint"""

# The keys of all versions of sentence-transformers; text-embeddings-inference requires the first two.
_POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write(folder: Path, config: EncoderConfig) -> None:
    """Write the files of an encoder, with the pooling that `bert.embed` has by default."""
    (folder / POOLING).mkdir(exist_ok=True)
    pooling = {key: name == EMBEDDING_POOLING for name, key in _POOLINGS.items()}
    contents: dict[str, Any] = {
        MODULES: [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": POOLING, "type": "sentence_transformers.models.Pooling"},
        ],
        f"{POOLING}/config.json": {
            "word_embedding_dimension": config.hidden_size,
            **pooling,
            "include_prompt": True,
        },
        LENGTHS: {"max_seq_length": config.max_positions, "do_lower_case": False},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def differences(folder: Path, config: EncoderConfig) -> list[str]:
    """How a folder's files embed in another way than `bert.embed` does by default; nothing if they do not."""
    pooling, lengths = _read(folder / POOLING / "config.json"), _read(folder / LENGTHS)
    if not (folder / MODULES).is_file() or pooling is None:
        return [
            f"{MODULES} or {POOLING}/config.json is missing: text-embeddings-inference takes the first token and "
            "bert.embed the mean of all; a checkpoint that is saved again has both"
        ]
    found = []
    active = [name for name, key in _POOLINGS.items() if pooling.get(key)]
    chosen = pooling.get("pooling_mode", active)
    if chosen not in (EMBEDDING_POOLING, [EMBEDDING_POOLING]):
        found.append(
            f"{POOLING}/config.json says {chosen}, and bert.embed has {EMBEDDING_POOLING} by default"
        )
    width = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    if width != config.hidden_size:
        found.append(
            f"{POOLING}/config.json is for vectors of {width}, and the model has {config.hidden_size}"
        )
    longest = (lengths or {}).get("max_seq_length")
    if longest is not None and longest != config.max_positions:
        found.append(f"{LENGTHS} cuts texts at {longest} tokens, and bert.embed at {config.max_positions}")
    return found


def _read(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
