"""Preparing a store: the same bytes however it was done, nothing lost, nothing twice, taken up where it stopped."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from bert.config import dump, from_dict
from bert.data.keys import key
from bert.errors import UserError, run_command
from bert.tokenizer import Tokenizer
from pretrain import prepare
from pretrain.config import PretrainConfig
from pretrain.corpus import sources as corpora
from pretrain.corpus import worker as tokenizing
from pretrain.corpus.text import is_heldout
from pretrain.data.store import Store
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "house",
    "tree",
    "runs",
    "sleeps",
    "sees",
    "under",
    "over",
    "green",
    "small",
    "Dr.",
    "old",
    "and",
    "or",
    "when",
    "it",
    "rains",
]


def text(seed: int, sentences: int = 20) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(" ".join(rng.choice(WORDS, 8)).capitalize() + "." for _ in range(sentences))


def make_config(folder: Path, **values) -> PretrainConfig:
    given = {
        "run_dir": str(folder / "run"),
        "corpus.files": [str(folder / "corpus.jsonl")],
        "corpus.heldout_share": 0.1,
        "tokenizer.vocab_size": 150,
        "prepare.workers": 1,
    }
    return from_dict(PretrainConfig, given | values)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text(n)}) + "\n" for n in range(60)))
    return tmp_path


@pytest.fixture
def small_shards(monkeypatch):
    """Units of a few documents, so that a small corpus is divided as a large one."""
    monkeypatch.setattr(corpora, "_SMALLEST_SHARD", 1 << 12)
    monkeypatch.setattr(corpora, "_SHARDS", 1 << 30)


def prepared(config: PretrainConfig) -> Path:
    ensure_tokenizer(config)
    return ensure_store(config)


def contents(path: Path) -> dict[str, str]:
    """File → digest, for all of a store."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def decoded(store: Store, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(np.concatenate(store.document(n))) for n in range(store.num_documents)]


def test_the_store_holds_the_corpus(folder, capsys):
    config = make_config(folder)
    path = prepared(config)
    tokenizer = Tokenizer.load(folder / "run" / "tokenizer")
    train, heldout = Store(path), Store(path, "heldout")
    texts = [text(n) for n in range(60)]
    held = [is_heldout(key([one]), 0.1) for one in texts]
    plain = [tokenizer.decode(tokenizer.encode_batch([one], special_tokens=False)[0]) for one in texts]
    assert 1 <= heldout.num_documents <= 15
    assert decoded(train, tokenizer) == [one for one, out in zip(plain, held, strict=True) if not out]
    assert decoded(heldout, tokenizer) == [one for one, out in zip(plain, held, strict=True) if out]
    assert all(len(train.document(n)) == 20 for n in range(train.num_documents))
    assert train.tokenizer_digest == tokenizer.digest and train.vocab_size == tokenizer.vocab_size
    assert train.metadata["tokenization"] == "each distinct word is tokenised once"
    assert "prepare: each distinct word is tokenised once\n" in capsys.readouterr().out
    assert train.metadata["counts"]["documents"] == 60 and train.metadata["counts"]["skipped"] == {}
    assert not (path / "progress").exists() and not list(path.rglob(".*"))


def test_workers_do_not_change_a_byte(folder, small_shards):
    config = make_config(folder)
    one = contents(prepared(config))
    assert len(one) > 20
    two = make_config(folder, **{"prepare.store": str(folder / "two"), "prepare.workers": 2})
    assert contents(ensure_store(two)) == one


def test_a_file_read_from_its_start_is_shared(folder, small_shards, monkeypatch):
    import gzip

    (folder / "packed.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    config = make_config(folder, **{"corpus.files": [str(folder / "packed.jsonl.gz")]})
    one = contents(prepared(config))

    def in_lanes(*arguments):
        return [dataclasses.replace(job, lane=lane, lanes=3) for job in jobs(*arguments) for lane in range(3)]

    jobs = prepare._jobs
    monkeypatch.setattr(prepare, "_jobs", in_lanes)
    other = dataclasses.replace(
        config, prepare=dataclasses.replace(config.prepare, store=str(folder / "lanes"))
    )
    assert contents(ensure_store(other)) == one


@pytest.mark.parametrize("place", ["write_shard", "write"])
def test_an_interrupted_preparation_goes_on(folder, small_shards, monkeypatch, place, capsys):
    whole = contents(prepared(make_config(folder)))
    config = make_config(folder, **{"prepare.store": str(folder / "other")})
    owner = tokenizing if place == "write_shard" else tokenizing.progress
    real, calls = getattr(owner, place), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) % 3 == 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(owner, place, failing)
    attempts = 0
    while not (folder / "other" / "index.json").exists():
        attempts += 1
        try:
            ensure_store(config)
        except KeyboardInterrupt:
            with pytest.raises(UserError, match="no finished store"):
                Store(folder / "other")
    assert attempts > 3
    assert contents(folder / "other") == whole
    assert len(calls) < 4 * len(whole)  # what was done was not done again


def test_what_was_prepared_from_unknown_options_is_done_again(folder, small_shards):
    config = make_config(folder)
    (folder / "run/store/progress").mkdir(parents=True)
    (folder / "run/store/progress/000000.json").write_text(
        '{"blocks": 1}'
    )  # an unfinished store of an earlier version
    other = make_config(folder, **{"prepare.store": str(folder / "other")})
    assert contents(prepared(config)) == contents(prepared(other))


def test_changes_are_noticed(folder, small_shards, monkeypatch):
    config = make_config(folder)
    path = prepared(config)
    assert ensure_store(config) == path
    changed = make_config(folder, **{"corpus.heldout_share": 0.2})
    with pytest.raises(UserError, match=r"corpus.heldout_share 0.1 → 0.2; delete it"):
        ensure_store(changed)
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size 150 → 160"):
        ensure_tokenizer(make_config(folder, **{"tokenizer.vocab_size": 160}))
    other = make_config(
        folder, **{"tokenizer.lowercase": False, "tokenizer.path": str(folder / "tokenizer2")}
    )
    ensure_tokenizer(other)
    with pytest.raises(UserError, match="was prepared otherwise: tokenizer "):
        ensure_store(other)
    (folder / "corpus.jsonl").unlink()
    assert ensure_store(config) == path  # a finished store needs its corpus no more


def test_changed_files_are_noticed_when_going_on(folder, small_shards, monkeypatch):
    config = make_config(folder)
    ensure_tokenizer(config)
    monkeypatch.setattr(tokenizing, "write_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ensure_store(config)
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"text": text(99)}) + "\n")
    with pytest.raises(UserError, match="files"):
        ensure_store(config)


def test_repeated_documents_are_dropped(folder, small_shards):
    lines = (folder / "corpus.jsonl").read_text().splitlines(keepends=True)
    (folder / "corpus.jsonl").write_text("".join(lines * 2 + [json.dumps({"text": f"  {text(3)}\n"}) + "\n"]))
    plain = Store(prepared(make_config(folder)))
    assert plain.metadata["counts"]["repeated"] == 61
    assert plain.num_documents + Store(plain.path, "heldout").num_documents == 60
    off = make_config(folder, **{"prepare.deduplicate": "off", "prepare.store": str(folder / "off")})
    assert Store(ensure_store(off)).num_documents == 2 * plain.num_documents + 1 - is_heldout(
        key([text(3)]), 0.1
    )


def test_what_looks_like_a_special_token_is_plain_text(folder):
    (folder / "corpus.jsonl").write_text(
        json.dumps({"text": "Use [MASK] and [SEP] here. [CLS] too."}) * 1 + "\n"
    )
    config = make_config(
        folder, **{"corpus.heldout_share": 0, "tokenizer.vocab_size": 100, "tokenizer.min_frequency": 1}
    )
    store = Store(prepared(config))
    tokenizer = Tokenizer.load(folder / "run" / "tokenizer")
    assert not np.isin(store.tokens(0), tokenizer.special_ids).any()
    assert [tokenizer.decode(sentence) for sentence in store.document(0)] == [
        "use [ mask ] and [ sep ] here.",
        "[ cls ] too.",
    ]


@pytest.mark.parametrize("format", ["jsonl", "text"])
def test_parts_of_a_document_stay_known(format, tmp_path, small_shards, monkeypatch):
    """Long documents are stored in parts, here over several shards; the store knows which are of one document."""
    monkeypatch.setattr("pretrain.corpus.readers.LONGEST_DOCUMENT", 3000)
    contents = [
        text(n, sentences).replace(". ", ".\n\n") for n, sentences in enumerate([9, 400, 20, 200, 90, 9])
    ]
    for n, content in enumerate(contents):
        written = json.dumps({"text": content}) + "\n" if format == "jsonl" else content
        (tmp_path / f"{n}.{format}").write_text(written)
    values = {"corpus.files": [str(tmp_path / "?.*")], "corpus.format": format, "corpus.heldout_share": 0}
    store = Store(prepared(make_config(tmp_path, **values)))
    assert len(store.shards) > 3
    sentences = [
        int(store.document_offsets[end] - store.document_offsets[first]) for first, end in store.parts
    ]
    assert sentences == [contents[n].count("\n\n") + 1 for n in (1, 3, 4)]
    assert store.num_wholes == 6 and store.num_documents > 9


def test_commands_end_in_a_line(folder, capsys):
    (folder / "config.yaml").write_text(f"run_dir: {folder}/run\ncorpus: {{files: [{folder}/missing]}}\n")
    assert run_command(prepare.main, [str(folder / "config.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "no such file" in error
    assert not (folder / "run").exists()


def test_a_corpus_without_a_document_is_refused(folder):
    config = make_config(folder)
    ensure_tokenizer(config)
    (folder / "corpus.jsonl").write_text('{"text": ""}\n' * 3)
    with pytest.raises(UserError, match=r"no document that can be used \(3 empty\)"):
        ensure_store(config)


@pytest.mark.slow
def test_a_killed_command_goes_on(folder):
    lines = "".join(json.dumps({"text": text(n, 400)}) + "\n" for n in range(600))
    (folder / "corpus.jsonl").write_text(lines)
    config = make_config(folder)
    ensure_tokenizer(config)
    whole = contents(ensure_store(config))
    words = [f"run_dir={folder}/run", f"corpus.files=[{folder}/corpus.jsonl]", "corpus.heldout_share=0.1"]
    words += ["tokenizer.vocab_size=150", "prepare.workers=2", f"prepare.store={folder}/killed"]
    (folder / "config.yaml").write_text("{}")
    command = [sys.executable, "-m", "pretrain.prepare", str(folder / "config.yaml"), *words]
    killed = subprocess.Popen(command)
    while not list((folder / "killed").glob("progress/*-*.json")) and killed.poll() is None:
        time.sleep(0.02)
    workers = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait()
    assert len(workers) >= 2 and not psutil.wait_procs(workers, timeout=60)[1]  # none is left behind
    assert subprocess.run(command, check=False).returncode == 0
    assert contents(folder / "killed") == whole


def peak_of(process: psutil.Process, before: int) -> int:
    """The most bytes that a process has had resident, `before` being what was found earlier."""
    with contextlib.suppress(OSError):  # Linux keeps it; a process that has ended, and other systems, do not
        if held := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()):
            return int(held[1]) * 1024
    with contextlib.suppress(psutil.Error):
        return max(before, process.memory_info().rss)
    return before


def peaks(folder: Path, documents: int) -> tuple[int, int]:
    """The most bytes that the command, and that a worker of it, had resident for a corpus of 10 kB documents."""
    folder.mkdir()
    texts = [text(n, 220) for n in range(50)]
    with (folder / "corpus.jsonl").open("w") as file:
        for number in range(documents):
            new = " ".join(f"{number * 100 + n:08d}" for n in range(100))  # words that occur once
            file.write(json.dumps({"text": f"{new}. {texts[number % 50]}"}) + "\n")
    (folder / "config.yaml").write_text("{}")
    words = [f"run_dir={folder}/run", f"corpus.files={folder}/corpus.jsonl", "prepare.workers=2"]
    words += ["tokenizer.vocab_size=300", "tokenizer.sample_bytes=1000000"]
    started = subprocess.Popen(
        [sys.executable, "-m", "pretrain.prepare", str(folder / "config.yaml"), *words]
    )
    command, found = psutil.Process(started.pid), {}
    while started.poll() is None:
        with contextlib.suppress(psutil.Error):
            for process in [command, *command.children(recursive=True)]:
                found[process.pid] = peak_of(process, found.get(process.pid, 0))
        time.sleep(0.01)
    assert started.returncode == 0
    own = found.pop(started.pid)
    return own, max(found.values())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    little, much = peaks(tmp_path / "10MB", 1_000), peaks(tmp_path / "100MB", 10_000)
    assert sum(much) + much[1] < 1e9, much
    assert much[0] < 1.3 * little[0] and much[1] < 1.3 * little[1], (little, much)


SLOW = """
import sys, time
from bert.config import load
from pretrain import prepare
from pretrain.config import PretrainConfig
from pretrain.corpus import worker as tokenizing
run = tokenizing.run
def slowly(job):
    time.sleep(1)
    return run(job)
tokenizing.run = slowly
prepare.ensure_store(load(PretrainConfig, sys.argv[1]))
"""


def test_a_second_command_waits_for_the_first(folder, capsys):
    config = make_config(folder)
    ensure_tokenizer(config)
    (folder / "config.yaml").write_text(dump(config))
    first = subprocess.Popen([sys.executable, "-c", SLOW, str(folder / "config.yaml")])
    while first.poll() is None and not (folder / "run/store/progress/options.json").exists():
        time.sleep(0.01)
    path = ensure_store(config)
    assert first.wait() == 0
    said = capsys.readouterr().out
    assert "another process prepares" in said and "documents" not in said
    assert Store(path).num_documents + Store(path, "heldout").num_documents == 60


def test_a_full_disk_ends_in_a_line_and_leaves_nothing_torn(folder, monkeypatch, capsys):
    config = make_config(folder)
    ensure_tokenizer(config)
    (folder / "config.yaml").write_text(dump(config))
    command = [str(folder / "config.yaml")]

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert run_command(prepare.main, command) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not [file for file in (folder / "run/store").rglob(".*") if file.name != ".lock"]
    assert run_command(prepare.main, command) == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs a system that sets space apart")
def test_no_mapped_file_is_larger_than_its_space(folder, monkeypatch, capsys):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    (folder / "config.yaml").write_text(dump(make_config(folder)))
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert run_command(prepare.main, [str(folder / "config.yaml")]) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
@pytest.mark.parametrize("name", ["store/index.json", "tokenizer/report.json"])
def test_a_damaged_description_is_told_in_a_line(folder, name, content):
    config = make_config(folder)
    prepared(config)
    (folder / "run" / name).write_text(content)
    with pytest.raises(UserError, match=name):
        prepared(config)


def test_a_store_that_cannot_be_made_is_told_in_a_line(folder):
    config = make_config(folder, **{"prepare.store": str(folder / "corpus.jsonl")})
    with pytest.raises(UserError, match="cannot be made"):
        prepared(config)
