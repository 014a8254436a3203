"""Sharded runs, FSDP2 and ZeRO, of a small encoder: the same weights as one process, whole checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bert import checkpoint
from bert.checkpoint import embedding_files, manifest
from bert.training.logging import read_metrics

pytestmark = [pytest.mark.launch, pytest.mark.timeout(1200)]

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
HYBRID = {
    **FSDP,
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2",
    "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2",
}
HYBRID_2_BY_4 = {**HYBRID, "PARALLELISM_CONFIG_DP_SHARD_SIZE": "4"}
ZERO = {
    stage: {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}
    for stage in (1, 2, 3)
}
SCRIPT = str(Path(__file__).with_name("small_run.py"))


class Runs:
    """Runs of the small encoder in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, name: str, processes: int = 1, sharding: dict[str, str] | None = None, **options: Any
    ) -> str:
        """What a run printed; it must end well, unless it is to be killed."""
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [sys.executable, *launcher, SCRIPT, str(self.folder / name), json.dumps(options)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **(sharding or {})},
            capture_output=True,
            text=True,
            timeout=600,
        )
        ends_well = not any(key.startswith("kill") for key in options)
        assert (done.returncode == 0) == ends_well, done.stdout + done.stderr
        return done.stdout + done.stderr

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return checkpoint.load(self.folder / name).state_dict()

    def difference(self, one: str, other: str) -> float:
        """The greatest of the weights; the losses of every step agree."""
        losses = [
            [line["loss"] for line in read_metrics(self.folder / run / "metrics.jsonl")]
            for run in (one, other)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        weights, theirs = self.weights(one), self.weights(other)
        return max((weights[name] - theirs[name]).abs().max().item() for name in weights)

    def files(self, name: str, step: int) -> set[str]:
        folder = self.folder / name / "checkpoints" / f"step-{step}"
        assert manifest.damage(folder) is None
        return {path.name for path in folder.iterdir()}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_shares_of_a_checkpoint_are_a_hugging_face_directory(runs: Runs) -> None:
    """Each process writes its own files; any other launch goes on from them."""
    import transformers

    runs("one", dropout=0.1, steps=4)
    runs("two", 2, FSDP, steps=4)
    names = runs.files("two", 3)
    assert {
        f"{kind}-0000{i}-of-00002.safetensors" for kind in ("model", "optimizer") for i in (1, 2)
    } <= names
    assert "model.safetensors.index.json" in names and "model.safetensors" not in names
    folder = runs.folder / "two" / "checkpoints" / "step-3"
    sizes = [(folder / f"optimizer-0000{i}-of-00002.safetensors").stat().st_size for i in (1, 2)]
    assert max(sizes) < 1.3 * min(sizes)
    theirs = transformers.BertForPreTraining.from_pretrained(folder)
    ours = checkpoint.load(folder).encoder.embeddings.tokens.weight
    assert torch.equal(theirs.bert.embeddings.word_embeddings.weight, ours)
    assert embedding_files.differences(folder, checkpoint.load(folder).config) == []
    assert {"model.safetensors", "optimizer.safetensors"} <= runs.files("one", 3)


@pytest.mark.slow
def test_a_sharded_run_that_is_killed_ends_bit_identical(runs: Runs) -> None:
    """Dropout on; a process dies before a step, one as it writes, and the main one as it writes."""
    runs("whole", 2, FSDP, dropout=0.1)
    runs("parts", 2, FSDP, dropout=0.1, kill=[1, 4])
    runs("parts", 2, FSDP, dropout=0.1, kill_in_save=[1, 6])
    assert not (runs.folder / "parts/checkpoints/step-6").exists()
    runs("parts", 2, FSDP, dropout=0.1, kill_in_save=[0, 6])
    runs("parts", 2, FSDP, dropout=0.1)
    one, other = runs.weights("whole"), runs.weights("parts")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_process_whose_disk_is_full_fails_the_save_for_all(runs: Runs) -> None:
    output = runs("run", 2, FSDP, steps=7, full_disk=[1, 6])
    said = "the checkpoint of step 6 could not be written (process 1: [Errno 28] No space left on device)"
    assert output.count(said) == 1
    left = sorted(path.name for path in (runs.folder / "run" / "checkpoints").iterdir())
    assert left == ["step-3", "step-7"]


@pytest.mark.slow
def test_shared_keys_and_a_decoder_of_its_own_can_be_sharded(runs: Runs) -> None:
    """EuroBERT's parts; transformers reads the shares of a checkpoint, in which q, k and v have unequal heights."""
    import transformers

    shape = {"positions": "rotary", "norm": "pre", "norm_kind": "rms", "norm_bias": False, "num_kv_heads": 1}
    shape |= {"feed_forward": "glu", "embedding_norm": False, "head": "none", "tied_decoder": False}
    shape |= {"num_segments": 0, "attention_bias": False, "feed_forward_bias": False, "decoder_bias": False}
    runs("one", optimizer="muon", shape=shape, steps=4)
    runs("two", 2, FSDP, optimizer="muon", shape=shape, steps=4)
    assert runs.difference("one", "two") < 1e-4  # Muon iterates in bf16
    folder = runs.folder / "two" / "checkpoints" / "step-3"
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert isinstance(theirs, transformers.EuroBertForMaskedLM) and not any(info.values())
    assert torch.equal(theirs.lm_head.weight, checkpoint.load(folder).head.decoder.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "average", "tolerance"),
    [
        ("adamw", 6, 1e-5),
        ("lamb", 0, 1e-5),
        ("stable_adamw", 0, 1e-5),
        ("muon", 0, 1e-4),  # Muon iterates in bf16
        ("normuon", 6, 1e-4),
    ],
)
def test_every_optimizer_can_be_sharded(runs: Runs, optimizer: str, average: int, tolerance: float) -> None:
    options = {"optimizer": optimizer, "average": average}
    runs("one", **options)
    runs("two", 2, FSDP, **options, kill=[0, 8])
    runs("two", 2, FSDP, **options)
    assert runs.difference("one", "two") < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("sharding", [None, FSDP], ids=["ddp", "fsdp"])
def test_layers_that_share_their_weights_can_be_sharded(runs: Runs, sharding: dict[str, str] | None) -> None:
    """ALBERT's: a module that runs several times in a step, and embeddings with a projection."""
    options = {"shape": {"embedding_size": 16, "num_layer_groups": 1}, "steps": 4}
    runs("one", **options)
    runs("two", 2, sharding, **options)
    assert runs.difference("one", "two") < 1e-5
    assert (
        json.loads((runs.folder / "two/checkpoints/step-4/config.json").read_text())["model_type"] == "albert"
    )


@pytest.mark.slow
def test_hybrid_sharding_agrees(runs: Runs) -> None:
    runs("one")
    runs("four", 4, HYBRID)
    assert len([name for name in runs.files("four", 9) if name.startswith("optimizer")]) == 4
    assert runs.difference("one", "four") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("sharding", [None, FSDP, HYBRID_2_BY_4], ids=["ddp", "fsdp", "hybrid"])
def test_eight_processes_agree(runs: Runs, sharding: dict[str, str] | None) -> None:
    """Also where clipping is decided on the device and steps are started ahead, as on GPUs."""
    runs("one", micro_batches=8, steps=4)
    runs("eight", 8, sharding, micro_batches=8, steps=4, ahead=True)
    assert runs.difference("one", "eight") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("stage, processes", [(1, 2), (2, 2), (3, 2), (3, 3)])
def test_deepspeed_agrees_and_any_launch_goes_on(runs: Runs, stage: int, processes: int) -> None:
    pytest.importorskip("deepspeed")
    runs("one")
    runs("parts", processes, ZERO[stage], kill=[0, 5])
    runs("parts", 2, FSDP, kill=[0, 7])
    runs("parts", processes, ZERO[stage], kill=[0, 9])
    runs("parts")
    assert runs.difference("one", "parts") < 1e-5


@pytest.mark.slow
def test_deepspeed_in_bf16(runs: Runs) -> None:
    pytest.importorskip("deepspeed")
    runs("fp32")
    runs("bf16", 2, ZERO[3], precision="bf16")
    losses = [
        [line["loss"] for line in read_metrics(runs.folder / run / "metrics.jsonl")]
        for run in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.slow
def test_what_deepspeed_cannot_do_is_refused(runs: Runs) -> None:
    pytest.importorskip("deepspeed")
    said = pytest.raises(AssertionError, match=r"optimizer\.name: lamb needs whole tensors")
    with said:
        runs("lamb", 2, ZERO[2], optimizer="lamb")
