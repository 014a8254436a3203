"""Export, transformers, import: bit-equal weights, equal outputs, nothing missing and nothing unexpected."""

import json
import re
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from bert import huggingface
from bert.checkpoint import folder as checkpoint
from bert.errors import UserError
from bert.huggingface.refused import MISSING
from bert.model.config import FAMILIES, EncoderConfig, Labels
from bert.model.models import build
from tests.weights import read_weights

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
NOMIC = {"positions": "rotary", "rotary_base": 1000.0, "feed_forward": "glu", "activation": "silu"}
NOMIC |= {"attention_bias": False, "feed_forward_bias": False, "pooler": False}
EURO = {**NOMIC, "num_segments": 0, "norm": "pre", "norm_kind": "rms", "norm_bias": False, "norm_eps": 1e-5}
EURO |= {"embedding_norm": False, "num_heads": 4, "num_kv_heads": 2, "head": "none", "decoder_bias": False}
EURO |= {"tied_decoder": False, "classifier": "gelu", "pooling": "late"}
ULTRA = {**EURO, "rotary_base_local": 70.0, "layer_pattern": "LLG", "window": 8, "head": "two_layer"}
ULTRA |= {"head_width": 24, "head_activation": "gelu_tanh", "head_bias": False, "classifier": "none"}
ULTRA |= {"pooling": "mean"}
KINDS = {
    "bert": {},
    "roberta": ROBERTA,
    "roberta-prelayernorm": {**ROBERTA, "norm": "pre"},
    "modernbert": MODERN,
    "nomic_bert": NOMIC,
    "eurobert": EURO,
    "ultrabert": ULTRA,
    huggingface.NATIVE: {"positions": "rotary"},
}
FURTHER = {
    "xlm-roberta": {**ROBERTA, "family": "xlm-roberta", "num_segments": 1},
    "xlm-roberta-xl": {**ROBERTA, "norm": "pre", "embedding_norm": False},
    "camembert": {**ROBERTA, "family": "camembert"},
    "data2vec-text": {**ROBERTA, "family": "data2vec-text"},
    "distilbert": {"num_segments": 0, "classifier": "relu", "pooler": False},
    "albert": {"embedding_size": 16, "num_layer_groups": 2, "activation": "gelu_tanh"},
    "electra": {
        **{"embedding_size": 16, "head_activation": "gelu", "classifier": "gelu"},
        **{"pooler": False, "family": "electra"},
    },
    "megatron-bert": {"norm": "pre", "embedding_norm": False},
    "ernie": {"num_tasks": 3, "family": "ernie"},
}
"""The families that are BERT or RoBERTa with little else."""
ARCHITECTURES = (
    "EncoderModel",
    "MaskedLanguageModel",
    "PretrainingModel",
    "SequenceClassifier",
    "TokenClassifier",
    "QuestionAnswering",
    "MultipleChoice",
)
LABELS = Labels(("yes", "no", "perhaps"))
IDS = torch.randint(2, 50, (3, 24), generator=torch.Generator().manual_seed(0))


def model_of(kind, architecture, **changes):
    config = EncoderConfig(**{**TINY, "pad_vocab_multiple": 16, **{**KINDS, **FURTHER}[kind], **changes})
    model = build(config, architecture, LABELS).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for name, parameter in model.named_parameters():
        if name in huggingface.BY_TOKEN:
            parameter.data[50:] = 0
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


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        (kind, architecture)
        for kind in {**KINDS, **FURTHER}
        for architecture in ARCHITECTURES
        if kind != huggingface.NATIVE and architecture in FAMILIES[kind].heads
    ],
)
def test_there_and_back_through_transformers(tmp_path, kind, architecture):
    there_and_back(tmp_path, kind, architecture)


def there_and_back(tmp_path, kind, architecture, **changes):
    model = model_of(kind, architecture, **changes)
    checkpoint.save(model, tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["model_type"] == kind
    name = written["architectures"][0]
    theirs, info = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    output = "start_logits" if architecture == "QuestionAnswering" else "logits"
    if architecture == "EncoderModel":
        output = "last_hidden_state"
    elif name.endswith("ForPreTraining"):
        output = "prediction_logits"
    with torch.no_grad():
        mine = model(IDS)
        given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
        if architecture == "MultipleChoice":
            given = {name: value[:, None] for name, value in given.items()}
        other = theirs.eval()(**given)
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


@pytest.mark.parametrize("kind", ["roberta", "modernbert", "eurobert"])
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
        {"num_segments": 0, "norm_eps": 1e-5},
        {"norm": "pre"},
        {"norm_kind": "rms", "norm_bias": False},
        {"embedding_norm": False},
        {"num_kv_heads": 1},
        {"tied_decoder": False},
        {"head": "two_layer"},
        {"head": "none"},
        {"num_layer_groups": 2},
    ],
)
def test_every_departure_from_an_architecture_is_noticed(changes):
    config = EncoderConfig(**{**TINY, **changes})
    assert huggingface.family_of(config, "MaskedLanguageModel") is None


def test_what_a_class_does_not_read_is_no_departure():
    config = EncoderConfig(**{**TINY, "pooling": "mean", "rotary_base": 7.0, "window": 2, "dropout": 0.5})
    assert huggingface.family_of(config, "MaskedLanguageModel").model_type == "bert"
    assert huggingface.family_of(config, "SequenceClassifier") is None


@pytest.mark.parametrize("kind", {**KINDS, **FURTHER})
def test_a_pretrained_encoder_gets_a_fresh_head(tmp_path, kind):
    pretrained = model_of(kind, "PretrainingModel")
    checkpoint.save(pretrained, tmp_path / "saved")
    labels = Labels(("a", "b"), "multi_label")
    model = checkpoint.load(tmp_path / "saved", "SequenceClassifier", labels=labels)
    assert model.labels == labels
    encoder = pretrained.encoder.state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in model.encoder.state_dict().items())
    assert model.classifier.weight.shape == (2, 32)
    if kind in ("bert", "albert", "ernie", "megatron-bert", huggingface.NATIVE):
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
    weights = read_weights(tmp_path / "saved" / checkpoint.WEIGHTS)
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


@pytest.mark.parametrize(
    "architecture, changes",
    [
        ("MaskedLanguageModel", {"tied_decoder": True, "head": "none"}),
        ("MaskedLanguageModel", {"feed_forward_bias": True, "attention_bias": True, "decoder_bias": True}),
        ("SequenceClassifier", {"pooling": "cls"}),
        ("SequenceClassifier", {"pooling": "mean", "num_kv_heads": None}),
    ],
)
def test_what_eurobert_may_have_instead_comes_back_as_well(tmp_path, architecture, changes):
    there_and_back(tmp_path, "eurobert", architecture, **changes)


def test_a_pooling_that_modernbert_lacks_is_no_modernbert(tmp_path):
    config = model_of("modernbert", "EncoderModel", pooling="late").config
    assert huggingface.family_of(config, "SequenceClassifier") is None
    assert huggingface.export_config(config, "EncoderModel")["classifier_pooling"] == "cls"


# config.json of answerdotai/ModernBERT-base (transformers 4.47), and what differs in the smallest Ettin and in mmBERT.
PUBLISHED = {
    **{"architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0},
    **{"bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": False},
    **{"classifier_dropout": 0.0, "classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True},
    **{"deterministic_flash_attn": False, "embedding_dropout": 0.0, "eos_token_id": 50282},
    **{"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "gradient_checkpointing": False},
    **{"hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0},
    **{"initializer_range": 0.02, "intermediate_size": 1152, "layer_norm_eps": 1e-05, "local_attention": 128},
    **{"local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0},
    **{"model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 12},
    **{"num_hidden_layers": 22, "pad_token_id": 50283, "position_embedding_type": "absolute"},
    **{"sep_token_id": 50282, "tie_word_embeddings": True, "torch_dtype": "float32"},
    **{"transformers_version": "4.47.0.dev0", "vocab_size": 50368},
}
ETTIN = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "num_hidden_layers": 7}
ETTIN |= {"local_rope_theta": 160000.0}
MM = {"vocab_size": 256000, "pad_token_id": 0, "local_rope_theta": 160000.0}


@pytest.mark.parametrize("changes", [{}, ETTIN, MM], ids=["modernbert", "ettin", "mmbert"])
def test_a_published_modernbert_is_read_as_transformers_reads_it_and_written_for_both_versions(changes):
    published = {**PUBLISHED, **changes}
    config, architecture, _ = huggingface.import_config(published)
    named = {k: v for k, v in published.items() if k != "model_type"}
    assert config == huggingface.import_config(transformers.ModernBertConfig(**named).to_dict())[0]
    assert (config.layer_pattern, config.windows[:2]) == ("GLL", (None, 128))
    assert (config.rotary_base, config.rotary_base_local) == (160000.0, published["local_rope_theta"])
    written = huggingface.export_config(config, architecture)
    old = [*(f"{kind}_rope_theta" for kind in ("global", "local")), "initializer_cutoff_factor"]
    for key in (*old, "global_attn_every_n_layers", "local_attention", "pad_token_id", "classifier_pooling"):
        assert written[key] == published[key]
    assert huggingface.NATIVE not in written
    newer = transformers.ModernBertConfig(**{k: v for k, v in written.items() if k != "model_type"})
    assert newer.rope_parameters["sliding_attention"]["rope_theta"] == published["local_rope_theta"]
    without_old = {k: v for k, v in written.items() if k not in (*old, "global_attn_every_n_layers")}
    without_new = {k: v for k, v in written.items() if k not in ("layer_types", "rope_parameters")}
    assert huggingface.import_config(without_old)[0] == huggingface.import_config(without_new)[0] == config


@pytest.mark.parametrize(
    "model_type, published",
    [
        ("eurobert", {"rope_theta": 250000, "rope_scaling": None, "head_dim": 64, "num_key_value_heads": 12}),
        ("nomic_bert", {"rope_theta": 500.0}),
    ],
)
def test_the_rotary_base_of_version_4_is_read_as_transformers_reads_it(model_type, published):
    written = transformers.AutoConfig.for_model(model_type, **published).to_dict()
    config = huggingface.import_config({"model_type": model_type, **published})[0]
    assert config == huggingface.import_config(written)[0]
    assert config.rotary_base == published["rope_theta"]


@pytest.mark.parametrize("pattern, every", [("G", 1), ("GL", 2), ("GLLL", 4), ("LG", None), ("GGL", None)])
def test_only_a_pattern_that_version_4_knows_has_a_number_there(pattern, every):
    config = model_of("modernbert", "EncoderModel", layer_pattern=pattern).config
    assert huggingface.export_config(config, "EncoderModel")["global_attn_every_n_layers"] == every


def test_the_first_checkpoints_of_ultrabert_load(tmp_path):
    model = model_of("ultrabert", "MaskedLanguageModel", num_layers=5)
    checkpoint.save(model, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key in ("layer_types", "rope_parameters", "sliding_window"):
        del config[key]
    config |= {"attention_windows": [4, 4, 0, 4, 4], "rope_theta": [70.0, 70.0, 1000.0, 70.0, 70.0]}
    path.write_text(json.dumps(config))
    old = {
        re.sub(r"^model\.", "ultrabert.", k): v
        for k, v in read_weights(tmp_path / checkpoint.WEIGHTS).items()
    }
    old["cls.weight"] = old.pop("head.decoder.weight")
    save_file(old, tmp_path / checkpoint.WEIGHTS, {"format": "pt"})
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    back = checkpoint.load(tmp_path)
    assert_same(model, back)
    with torch.no_grad():
        torch.testing.assert_close(back(IDS).logits, theirs(IDS).logits, atol=1e-4, rtol=1e-5)


def test_the_first_names_of_nomic_bert_load(tmp_path):
    model = model_of("nomic_bert", "EncoderModel")
    checkpoint.save(model, tmp_path)
    weights, old = read_weights(tmp_path / checkpoint.WEIGHTS), {}
    names = {"self_attn.o_proj": "attn.out_proj", "up_proj": "fc11", "gate_proj": "fc12", "down_proj": "fc2"}
    names |= {"post_attention_layernorm": "norm1", "post_mlp_layernorm": "norm2", "layers": "encoder.layers"}
    names |= {"embeddings.LayerNorm": "emb_ln"}
    for name, tensor in weights.items():
        if "q_proj" in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name, tensor = name.replace("self_attn.q_proj", "attn.Wqkv"), torch.cat(parts)
        for new, before in names.items():
            name = name.replace(new, before)
        if not name.endswith(("k_proj.weight", "v_proj.weight")):
            old[name] = tensor
    save_file(old, tmp_path / checkpoint.WEIGHTS, {"format": "pt"})
    assert_same(model, checkpoint.load(tmp_path))
    theirs, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    theirs.save_pretrained(tmp_path / "theirs")
    assert_same(model, checkpoint.load(tmp_path / "theirs"))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_configuration_leaves_out_is_as_in_transformers(name):
    config = transformers.AutoConfig.for_model(name)
    assert FAMILIES[name].read_config({}) == FAMILIES[name].read_config(config.to_dict())


def test_what_is_refused_by_name_is_in_transformers_and_not_here():
    assert not MISSING.keys() & FAMILIES.keys()
    if "ultrabert" in CONFIG_MAPPING_NAMES:  # an older transformers lacks some that are refused
        assert MISSING.keys() <= CONFIG_MAPPING_NAMES.keys()


@pytest.mark.parametrize("family", ["electra", "ernie"])
def test_a_family_is_kept_where_another_computes_the_same(tmp_path, family):
    """An ELECTRA without a projection and an ERNIE without tasks predict tokens as BERT does."""
    changes = {"electra": {"embedding_size": None}, "ernie": {"num_tasks": 0}}[family]
    model = model_of(family, "MaskedLanguageModel", **changes)
    checkpoint.save(model, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == family
    assert_same(model, checkpoint.load(tmp_path))
    plain = replace(model.config, family=None)
    assert huggingface.family_of(plain, "MaskedLanguageModel").model_type == "bert"


def test_a_family_that_does_not_fit_is_named(tmp_path, caplog):
    checkpoint.save(model_of("bert", "MaskedLanguageModel", family="camembert"), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    assert "written as bert, not as family=camembert; unlike camembert it has" in caplog.text
    assert "position_offset=0" in caplog.text


def test_the_encoder_of_an_electra_discriminator_gets_a_prediction_head(tmp_path):
    sizes = {"hidden_size": 32, "embedding_size": 16, "num_attention_heads": 2, "intermediate_size": 48}
    theirs = transformers.ElectraForPreTraining(transformers.ElectraConfig(**sizes, vocab_size=50)).eval()
    theirs.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no class here for ElectraForPreTraining"):
        checkpoint.load(tmp_path)
    model = checkpoint.load(tmp_path, "MaskedLanguageModel")
    with torch.no_grad():
        expected = theirs.electra(IDS).last_hidden_state
        torch.testing.assert_close(model(IDS).last_hidden_state, expected, atol=1e-5, rtol=0)
    assert huggingface.export_config(model.config, "MaskedLanguageModel")["architectures"] == [
        "ElectraForMaskedLM"
    ]


@pytest.mark.parametrize(
    "kind, name", [("bert", "cls.predictions"), ("roberta", "lm_head"), ("albert", "predictions")]
)
def test_the_bias_of_the_decoder_is_read_under_either_name(tmp_path, kind, name):
    model = model_of(kind, "MaskedLanguageModel")
    checkpoint.save(model, tmp_path)
    weights = read_weights(tmp_path / checkpoint.WEIGHTS)
    weights[f"{name}.decoder.bias"] = weights.pop(f"{name}.bias")
    save_file(weights, tmp_path / checkpoint.WEIGHTS)
    assert_same(model, checkpoint.load(tmp_path))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_act": "mish"}, "mish"),
        ({"model_type": "t5"}, "t5.*a decoder beside its encoder"),
        ({"model_type": "deberta-v2"}, "deberta-v2.*relative positions"),
        ({"model_type": "nobody"}, "nobody.*known are bert, .*ernie"),
        ({"type_vocab_size": 0}, "type_vocab_size"),
        ({"num_attention_heads": 5}, "num_heads"),
        ({"model_type": "modernbert", "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"model_type": "nomic_bert", "head_dim": 8}, "head_dim=8"),
        ({"model_type": "eurobert", "classifier_pooling": "max"}, "classifier_pooling"),
        ({"hidden_size": 64}, "embeddings"),
        ({"architectures": ["BertForNextSentencePrediction"]}, "BertForNextSentencePrediction"),
        ({"architectures": [3]}, "no class here for 3"),
        ({"num_attention_heads": 0}, "wrong type"),
        ({"num_hidden_layers": 0}, "num_layers: 0 is not allowed"),
        ({"hidden_dropout_prob": 2}, "dropout: 2 is not allowed"),
        ({"hidden_dropout_prob": None}, "dropout: null is not allowed"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_line(tmp_path, changes, message):
    checkpoint.save(model_of("bert", "MaskedLanguageModel"), tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=message) as error:
        checkpoint.load(tmp_path / "saved")
    assert "\n" not in str(error.value)
