"""Architectures of transformers that cannot be computed here, and what they have that our encoder has not."""

from collections.abc import Iterable

_REFUSED = {
    "attention with relative positions": ("deberta", "deberta-v2", "mpnet", "xlnet", "funnel"),
    "rotary positions that turn neighbouring columns": ("roformer",),
    "sparse attention with global tokens": ("longformer", "big_bird", "led"),
    "attention that is only approximated": ("nystromformer", "mra", "yoso", "reformer"),
    "convolutions beside attention": ("convbert", "squeezebert"),
    "Fourier transforms in place of attention": ("fnet",),
    "layers with bottlenecks": ("mobilebert",),
    "embeddings scaled by the share of masked tokens (token dropout)": ("esm",),
    "output embeddings of another width than those of the input": ("rembert",),
    "embeddings of characters": ("canine",),
    "embeddings of shape and pronunciation": ("roc_bert",),
    "embeddings of entities": ("luke",),
    "embeddings of layout": (
        "layoutlm",
        "layoutlmv2",
        "layoutlmv3",
        "layoutxlm",
        "lilt",
        "bros",
        "markuplm",
        "tapas",
    ),
    "embeddings of languages": ("xlm", "flaubert"),
    "adapters for languages": ("xmod",),
    "integer arithmetic": ("ibert",),
    "scaled residual connections": ("esmc", "neomme"),
    "an encoder of images before its layers": ("modernvbert", "ultravbert"),
    "a fixed number of latent vectors in place of tokens": ("perceiver",),
    "a head for spans and none for masked tokens": ("splinter",),
    "a head for generating text and none for masked tokens": ("bert-generation",),
    "a pair of encoders in one": ("dpr",),
    "a decoder beside its encoder": (
        *("t5", "mt5", "umt5", "longt5", "switch_transformers", "t5gemma", "t5gemma2", "bart", "mbart"),
        *(
            "pegasus",
            "pegasus_x",
            "bigbird_pegasus",
            "marian",
            "m2m_100",
            "nllb-moe",
            "prophetnet",
            "blenderbot",
        ),
        *("encoder-decoder", "plbart", "mvp", "fsmt"),
    ),
    "causal attention (a decoder)": (
        *(
            "gpt2",
            "gpt_neo",
            "gpt_neox",
            "gptj",
            "gpt_oss",
            "opt",
            "bloom",
            "ctrl",
            "openai-gpt",
            "falcon",
            "mpt",
        ),
        *(
            "llama",
            "mistral",
            "mixtral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "gemma3",
            "gemma3_text",
            "phi",
            "phi3",
        ),
        *("olmo", "olmo2", "olmo3", "smollm3", "starcoder2", "stablelm", "cohere", "cohere2", "granite"),
        *("deepseek_v2", "deepseek_v3", "modernbert-decoder"),
    ),
    "a recurrent state in place of attention": ("mamba", "mamba2", "rwkv", "recurrent_gemma", "xlstm"),
}
MISSING = {model_type: what for what, types in _REFUSED.items() for model_type in types}


def reason(model_type: str | None, known: Iterable[str]) -> str:
    """Why a configuration of this model_type cannot be loaded."""
    if model_type in MISSING:
        return f"it has {MISSING[model_type]}, which this encoder has not"
    return f"known are {', '.join(known)}"
