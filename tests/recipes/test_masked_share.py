"""Each phase of every shipped pretraining recipe masks the share of tokens that the recipe promises."""

from dataclasses import replace
from pathlib import Path

import pytest

from bert import config as configuration
from pretrain.config import PretrainConfig
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.objective import MaskProbRamp
from pretrain.prepare import ensure_store, store_folder
from pretrain.tokenizer import ensure_tokenizer, tokenizer_folder

ROOT = Path(__file__).parents[2]
RECIPES = [*sorted((ROOT / "configs" / "pretrain").glob("*.yaml")), ROOT / "demo" / "pretrain.yaml"]
STEPS, SEQUENCES = 200, 24


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_each_phase_masks_what_the_recipe_promises(
    recipe: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first step and at the last one; of the recipe only the number of sequences is made smaller, and no
    checkpoint is continued."""
    monkeypatch.chdir(ROOT)
    words = [f"run_dir={tmp_path}", f"corpus.files={corpus}", "tokenizer.vocab_size=500"]
    words += ["prepare.workers=1", "corpus.heldout_share=0", "model.from=null"]
    config = configuration.load(PretrainConfig, recipe, words)
    phases = tuple(replace(phase, sequences=SEQUENCES) for phase in config.batch.phases)
    batch = replace(config.batch, sequences=SEQUENCES, phases=phases)
    ensure_tokenizer(config)
    ensure_store(config)
    places = store_folder(config), tokenizer_folder(config)
    batches = PretrainingBatches(*places, config.objective, batch, config.seed, STEPS)
    starts = [phase.first_step for phase in batches.phases]
    for first, end in zip(starts, [*starts[1:], STEPS], strict=True):
        for step in (first, end - 1):
            counts = batches[step].counts
            assert counts["mlm"] / counts["tokens"] == pytest.approx(promised(config, step), abs=0.01), step


def promised(config: PretrainConfig, step: int) -> float:
    """The masking probability of the first step or of a phase's last one, which is after a ramp's end."""
    ramp = config.objective.mask_prob
    if isinstance(ramp, MaskProbRamp):
        return ramp.end if step else ramp.start
    return ramp
