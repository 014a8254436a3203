"""Export, transformers, import: bit-equal weights, equal outputs, nothing missing and nothing unexpected."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bert import huggingface
from bert.checkpoint import folder as checkpoint
from bert.errors import UserError
from bert.model.config import EncoderConfig, Labels
from bert.model.models import build

TINY = {"vocab_size": 50, "hidden_size": 32, "num_heads": 2, "num_layers": 4, "intermediate_size": 48}
TINY |= {"max_positions": 24, "init_std": 0.3}
ROBERTA = {"position_offset": 2, "pad_token_id": 1, "head_activation": "gelu", "classifier": "dense"}
MODERN = {
    **{"num_segments": 0, "positions": "rotary", "rotary_base": 160000.0, "rotary_base_local": 10000.0},
    **{
        "norm": "pre",
        "norm_eps": 1e-5,
        "norm_bias": False,
        "first_norm_identity": True,
        "feed_forward": "glu",
    },
    **{
        "attention_bias": False,
        "feed_forward_bias": False,
        "head_bias": False,
        "layer_pattern": "GLL",
        "window": 8,
    },
    **{"classifier": "transform", "pooler": False, "pooling": "mean"},
}
KINDS = {
    "bert": {},
    "roberta": ROBERTA,
    "roberta-prelayernorm": {**ROBERTA, "norm": "pre"},
    "modernbert": MODERN,
    huggingface.NATIVE: {"positions": "rotary"},
}
ARCHITECTURES = (
    "EncoderModel",
    "MaskedLanguageModel",
    "PretrainingModel",
    "SequenceClassifier",
    "TokenClassifier",
)
LABELS = Labels(("yes", "no", "perhaps"))
IDS = torch.randint(2, 50, (3, 24), generator=torch.Generator().manual_seed(0))


def model_of(kind, architecture, **changes):
    config = EncoderConfig(**{**TINY, "pad_vocab_multiple": 16, **KINDS[kind], **changes})
    model = build(config, architecture, LABELS).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if architecture in ("MaskedLanguageModel", "PretrainingModel"):
        model.head.bias.data[50:] = 0
    model.encoder.embeddings.tokens.weight.data[50:] = 0
    return model


def assert_same(one, two):
    assert one.config == two.config
    state = two.state_dict()
    assert state.keys() == one.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_loaded_as_it_was(tmp_path, kind, architecture):
    model = model_of(kind, architecture, dropout=0.3, attention_dropout=0.05, init_outputs="zero")
    checkpoint.save(model, tmp_path / "saved")
    loaded = checkpoint.load(tmp_path / "saved")
    assert type(loaded) is type(model)
    assert not loaded.training
    assert_same(model, loaded)
    if architecture.endswith("Classifier"):
        assert loaded.labels == LABELS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != huggingface.NATIVE])
def test_there_and_back_through_transformers(tmp_path, kind, architecture):
    model = model_of(kind, architecture)
    checkpoint.save(model, tmp_path / "ours")
    name = json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"][0]
    theirs, info = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    output = "logits"
    if architecture == "EncoderModel":
        output = "last_hidden_state"
    elif kind == "bert" and architecture == "PretrainingModel":
        output = "prediction_logits"
    with torch.no_grad():
        mine, other = model(IDS), theirs.eval()(IDS)
    mine = mine.prediction_logits if architecture == "PretrainingModel" else mine[output]
    torch.testing.assert_close(mine, other[output], atol=1e-4, rtol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    if (tmp_path / "ours" / checkpoint.OWN_WEIGHTS).exists():  # what transformers could not have kept
        (tmp_path / "theirs" / checkpoint.OWN_WEIGHTS).write_bytes(
            (tmp_path / "ours" / checkpoint.OWN_WEIGHTS).read_bytes()
        )
    back = checkpoint.load(tmp_path / "theirs")
    assert_same(model, back)
    if architecture.endswith("Classifier"):
        assert back.labels == LABELS


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_a_pair_head_lies_beside_what_transformers_loads(tmp_path, kind):
    model = model_of(kind, "PretrainingModel")
    checkpoint.save(model, tmp_path / "saved")
    own = load_file(tmp_path / "saved" / checkpoint.OWN_WEIGHTS)
    assert sorted(own) == ["pair.bias", "pair.weight", "pooler.dense.bias", "pooler.dense.weight"]
    auto = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        torch.testing.assert_close(auto(IDS).logits, model(IDS).prediction_logits, atol=1e-4, rtol=1e-5)


def test_what_transformers_cannot_express_says_so(tmp_path, caplog):
    checkpoint.save(model_of("bert", "MaskedLanguageModel", positions="rotary"), tmp_path / "saved")
    assert "transformers cannot load this encoder" in caplog.text
    assert "positions=rotary" in caplog.text
    with pytest.raises(ValueError, match=huggingface.NATIVE):
        transformers.AutoModel.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_bias": False},
        {"feed_forward": "glu"},
        {"layer_pattern": "GL"},
        {"head_bias": False},
        {"decoder_bias": False},
        {"position_offset": 1, "pad_token_id": 4},
        {"attention_bias": False},
        {"num_segments": 0, "positions": "sinusoidal"},
        {"norm": "pre"},
    ],
)
def test_every_departure_from_an_architecture_is_noticed(changes):
    config = EncoderConfig(**{**TINY, **changes})
    assert huggingface.family_of(config, "MaskedLanguageModel") is None


def test_what_a_class_does_not_read_is_no_departure():
    config = EncoderConfig(**{**TINY, "pooling": "mean", "rotary_base": 7.0, "window": 2, "dropout": 0.5})
    assert huggingface.family_of(config, "MaskedLanguageModel").model_type == "bert"
    assert huggingface.family_of(config, "SequenceClassifier") is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_pretrained_encoder_gets_a_fresh_head(tmp_path, kind):
    pretrained = model_of(kind, "PretrainingModel")
    checkpoint.save(pretrained, tmp_path / "saved")
    labels = Labels(("a", "b"), "multi_label")
    model = checkpoint.load(tmp_path / "saved", "SequenceClassifier", labels=labels)
    assert model.labels == labels
    encoder = pretrained.encoder.state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in model.encoder.state_dict().items())
    assert model.classifier.weight.shape == (2, 32)
    if kind in ("bert", huggingface.NATIVE):
        assert torch.equal(model.pooler.dense.weight, pretrained.pooler.dense.weight)
    if kind == "modernbert":
        assert torch.equal(model.pooler.dense.weight, pretrained.head.dense.weight)
    assert model(IDS, labels=torch.zeros(3, 2)).loss.isfinite()


def test_new_labels_start_a_new_projection_only(tmp_path):
    before = model_of("bert", "SequenceClassifier")
    checkpoint.save(before, tmp_path / "saved")
    after = checkpoint.load(tmp_path / "saved", labels=Labels(("x", "y")))
    assert after.classifier.weight.shape == (2, 32)
    assert torch.equal(after.pooler.dense.weight, before.pooler.dense.weight)
    renamed = checkpoint.load(tmp_path / "saved", labels=Labels(("x", "y", "z")))
    assert torch.equal(renamed.classifier.weight, before.classifier.weight)


def test_old_names_and_missing_prefixes_load(tmp_path):
    model = model_of("bert", "MaskedLanguageModel")
    checkpoint.save(model, tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / checkpoint.WEIGHTS)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in weights.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(24)[None]
    old["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].clone()
    save_file(old, tmp_path / "saved" / checkpoint.WEIGHTS)
    assert_same(model, checkpoint.load(tmp_path / "saved"))
    bare = {name.removeprefix("bert."): tensor for name, tensor in old.items() if name.startswith("bert.")}
    save_file(bare, tmp_path / "saved" / checkpoint.WEIGHTS)
    encoder = checkpoint.load(tmp_path / "saved", "EncoderModel")
    assert encoder.pooler is None
    assert not encoder.config.pooler
    state = model.encoder.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.encoder.state_dict().items())


def test_modernbert_of_version_4_loads():
    written = transformers.ModernBertConfig(num_hidden_layers=4).to_dict()
    expected, _, _ = huggingface.import_config(written)
    del written["layer_types"], written["rope_parameters"]
    written |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    assert huggingface.import_config(written)[0] == expected
    assert expected.layer_pattern == "GLL"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_act": "mish"}, "mish"),
        ({"model_type": "t5"}, "t5"),
        ({"num_attention_heads": 5}, "num_heads"),
        ({"hidden_size": 64}, "embeddings"),
        ({"architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_line(tmp_path, changes, message):
    checkpoint.save(model_of("bert", "MaskedLanguageModel"), tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=message) as error:
        checkpoint.load(tmp_path / "saved")
    assert "\n" not in str(error.value)
