"""Each shipped size has as many parameters as its file says."""

import re
from pathlib import Path

import pytest
import torch

from bert import config as configuration
from bert.model.config import EncoderConfig
from bert.model.models import build

FILES = sorted((Path(__file__).parents[2] / "configs" / "model").glob("*.yaml"))
# As published with the models: Turc et al. 2019, Devlin et al. 2018, Warner et al. 2024; in millions.
PUBLISHED = {
    **{"bert-tiny": 4.4, "bert-mini": 11.3, "bert-small": 29.1, "bert-medium": 41.7, "bert-base": 110.1},
    **{"bert-large": 336, "modern-base": 149, "modern-large": 395},
}


def test_all_sizes_are_there():
    assert {file.stem for file in FILES} == {*PUBLISHED, "modern-mini", "modern-small"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_parameters_are_as_many_as_the_file_says(file):
    said = re.search(r"^# ([\d,]+) parameters as (\w+)$", file.read_text(encoding="utf-8"), re.M)
    with torch.device("meta"):
        model = build(configuration.load(EncoderConfig, file), said[2])
    number = sum(parameter.numel() for parameter in model.parameters())
    assert f"{number:,}" == said[1]
    if file.stem in PUBLISHED:
        assert number / 1e6 == pytest.approx(
            PUBLISHED[file.stem], abs=1 if PUBLISHED[file.stem] > 140 else 0.05
        )
