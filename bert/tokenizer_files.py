"""Tokenizer files: vocab.txt, vocab.json + merges.txt, tokenizer.json in; a Hugging Face folder out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bert.errors import UserError
from bert.files import write_text

ROLES = ("cls", "sep", "pad", "mask", "unk")
USUAL_NAMES = {
    "cls": ("[CLS]", "<s>", "<bos>"),
    "sep": ("[SEP]", "</s>", "<eos>"),
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
    "unk": ("[UNK]", "<unk>"),
}
STAND_INS = {"cls": "bos", "sep": "eos"}
"""roles of other models' tokens that serve as well"""
EVERYTHING_FITS = 10**9  # transformers writes 10**30 as model_max_length if no limit is known


def find(path: Path) -> Path:
    """The file or folder that holds the tokenizer of `path`: itself, or the one inside a run folder."""
    candidates = [path, path / "tokenizer", path / "model"] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file() or _main_file(candidate) is not None:
            return candidate
    if not path.exists():
        raise UserError(
            f"{path}: no such file or folder; name a tokenizer.json, a vocab.txt or a folder with one"
        )
    if list(path.glob("*.model")):
        raise UserError(
            f"{path}: has a SentencePiece model but no tokenizer.json; AutoTokenizer.from_pretrained(…)"
            ".save_pretrained(…) of transformers writes one"
        )
    raise UserError(f"{path}: has no tokenizer.json, vocab.txt, or vocab.json with merges.txt")


def read(path: Path) -> tuple[Tokenizer, dict[str, str], int | None]:
    """A tokenizer, the special tokens that its files name, by role, and its longest sequence.

    The roles are `ROLES`, and bos and eos, which other models than BERT have.
    """
    file = path if path.is_file() else _main_file(path)
    assert file is not None
    config = _read_json(file.parent / "tokenizer_config.json")
    named = _read_json(file.parent / "special_tokens_map.json") | config
    roles = (*ROLES, *STAND_INS.values())
    special = {role: _content(named[f"{role}_token"]) for role in roles if named.get(f"{role}_token")}
    try:
        if file.name == "vocab.json":
            backend = _byte_level_bpe(file, file.with_name("merges.txt"), config, special)
        elif file.suffix == ".json":
            backend = Tokenizer.from_file(str(file))
        else:
            backend = word_piece(_read_vocabulary(file), config, special)
    except UserError:
        raise
    except Exception as error:  # tokenizers raises bare Exceptions
        raise UserError(f"{file}: cannot be read as a tokenizer ({' '.join(str(error).split())})") from None
    max_length = config.get("model_max_length")
    return backend, special, int(max_length) if max_length and max_length < EVERYTHING_FITS else None


def word_piece(
    vocabulary: Mapping[str, int], config: Mapping[str, Any], special: Mapping[str, str]
) -> Tokenizer:
    """BERT's tokenizer over a vocabulary, as google-research/bert/tokenization.py defines it.

    `config` has the keys of tokenizer_config.json. Without `do_lower_case`, a vocabulary counts as lowercased
    unless one of its normal tokens has a capital letter.
    """
    names = {role: special.get(role, USUAL_NAMES[role][0]) for role in ROLES}
    missing = [name for name in names.values() if name not in vocabulary]
    if missing:
        raise UserError(f"the vocabulary lacks {', '.join(missing)}; add a line for each")
    lowercase = config.get("do_lower_case")
    if lowercase is None:
        lowercase = all(token == token.lower() for token in vocabulary if token[:1] not in "[<")
    backend = Tokenizer(
        models.WordPiece(dict(vocabulary), unk_token=names["unk"], max_input_chars_per_word=100)
    )
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens(list(names.values()))
    return backend


def bert_template(cls: tuple[str, int], sep: tuple[str, int]) -> Any:
    """`[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, with segment 1 from B on."""
    return processors.TemplateProcessing(
        single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
        pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
        special_tokens=[cls, sep],
    )


def write(folder: Path, backend: Tokenizer, config: Mapping[str, Any]) -> None:
    """Write tokenizer.json, tokenizer_config.json and, for WordPiece, vocab.txt; each file appears whole.

    tokenizer.json comes last: a folder that has it is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(backend.model, models.WordPiece):
        tokens = sorted(backend.get_vocab().items(), key=lambda item: item[1])
        write_text(folder / "vocab.txt", "".join(f"{token}\n" for token, _ in tokens))
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))


def config_for(
    backend: Tokenizer, special: Mapping[str, str], max_length: int | None, segments: bool
) -> dict[str, Any]:
    """tokenizer_config.json: enough for AutoTokenizer to build the same tokenizer.

    transformers rebuilds a BertTokenizer from the vocabulary and the flags here. So only exactly BERT's pipeline
    may have that name; all others are a PreTrainedTokenizerFast, which is read from tokenizer.json.
    """
    description = json.loads(backend.to_str())
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if _is_plain_bert(description):
        normalizer = description["normalizer"]
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
    prefix_space = (description["pre_tokenizer"] or {}).get("add_prefix_space")
    if prefix_space is not None:  # without it transformers 4 takes False, whatever tokenizer.json says
        config["add_prefix_space"] = prefix_space
    config |= {f"{role}_token": token for role, token in special.items()}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config["model_input_names"] = [name for name in names if segments or name != "token_type_ids"]
    if max_length is not None:
        config["model_max_length"] = max_length
    return config | {"clean_up_tokenization_spaces": False}


def _is_plain_bert(description: Mapping[str, Any]) -> bool:
    model, normalizer = description["model"], description["normalizer"] or {}
    return (
        model.get("type") == "WordPiece"
        and model["continuing_subword_prefix"] == "##"
        and model["max_input_chars_per_word"] == 100
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and description["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and all(
            token["special"] and token["id"] in model["vocab"].values()
            for token in description["added_tokens"]
        )
    )


def _byte_level_bpe(
    vocabulary: Path, merges: Path, config: Mapping[str, Any], special: dict[str, str]
) -> Tokenizer:
    """RoBERTa's tokenizer from the two files of GPT-2's format."""
    prefix_space = bool(config.get("add_prefix_space", False))
    backend = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    names = {role: special.get(role, USUAL_NAMES[role][1]) for role in ROLES}
    ids: dict[str, Any] = {role: backend.token_to_id(name) for role, name in names.items()}
    missing = [names[role] for role, index in ids.items() if index is None]
    if missing:
        raise UserError(f"{vocabulary}: the vocabulary lacks {', '.join(missing)}")
    backend.post_processor = processors.RobertaProcessing(
        (names["sep"], ids["sep"]), (names["cls"], ids["cls"]), True, prefix_space
    )
    # As in the original, the mask includes the space before it, because predicted words begin with a space.
    backend.add_special_tokens(
        [AddedToken(name, lstrip=role == "mask", normalized=False) for role, name in names.items()]
    )
    return backend


def _main_file(folder: Path) -> Path | None:
    """The file of a folder that the tokenizer is read from."""
    for name in ("tokenizer.json", "vocab.txt", "vocab.json"):
        if (folder / name).is_file() and (name != "vocab.json" or (folder / "merges.txt").is_file()):
            return folder / name
    return None


def _read_vocabulary(file: Path) -> dict[str, int]:
    """Token → id from a file with one token on each line. As in the original, the last of equal lines counts."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if lines[-1] == "":
        lines.pop()
    return {token.removesuffix("\r"): index for index, token in enumerate(lines)}


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not valid JSON ({error})") from None


def _content(token: str | Mapping[str, Any]) -> str:
    """A special token as transformers writes it: its text, or an AddedToken's fields."""
    return token if isinstance(token, str) else str(token["content"])
