"""The configuration of an encoder. Plain data: importing this loads no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from bert.config import NonNegativeInt, PositiveFloat, PositiveInt, Probability, Table

ACTIVATIONS = Table(
    gelu="torch.nn.functional:gelu",
    gelu_tanh="bert.model.feedforward:gelu_tanh",
    relu="torch.nn.functional:relu",
    silu="torch.nn.functional:silu",
)
BACKENDS = Table(
    eager="bert.model.backends:EAGER",
    sdpa="bert.model.backends:SDPA",
    varlen="bert.model.backends:VARLEN",
    flex="bert.model.backends:FLEX",
    grouped="bert.model.backends:GROUPED",
)
CLASSIFIERS = Table(
    pooler="bert.model.heads:Pooler",
    dense="bert.model.heads:DropoutPooler",
    transform="bert.model.heads:Transform",
    relu="bert.model.heads:ReluPooler",
    gelu="bert.model.heads:GeluPooler",
    none="torch.nn:Identity",
)
FAMILIES = Table(
    **{
        "bert": "bert.huggingface.bert:BERT",
        "roberta": "bert.huggingface.roberta:ROBERTA",
        "roberta-prelayernorm": "bert.huggingface.roberta:ROBERTA_PRENORM",
        "modernbert": "bert.huggingface.modernbert:MODERNBERT",
        "nomic_bert": "bert.huggingface.nomic:NOMIC",
        "eurobert": "bert.huggingface.eurobert:EUROBERT",
        "ultrabert": "bert.huggingface.ultrabert:ULTRABERT",
        "xlm-roberta": "bert.huggingface.roberta:XLM_ROBERTA",
        "xlm-roberta-xl": "bert.huggingface.roberta:XLM_ROBERTA_XL",
        "camembert": "bert.huggingface.roberta:CAMEMBERT",
        "data2vec-text": "bert.huggingface.roberta:DATA2VEC",
        "distilbert": "bert.huggingface.distilbert:DISTILBERT",
        "albert": "bert.huggingface.albert:ALBERT",
        "electra": "bert.huggingface.electra:ELECTRA",
        "megatron-bert": "bert.huggingface.megatron:MEGATRON",
        "ernie": "bert.huggingface.ernie:ERNIE",
    }
)
"""The architectures of transformers, by their model_type. A model is written as the first that computes the same."""
FEED_FORWARDS = Table(mlp="bert.model.feedforward:FeedForward", glu="bert.model.feedforward:GatedFeedForward")
HEADS = Table(
    transform="bert.model.heads:TransformHead",
    two_layer="bert.model.heads:TwoLayerHead",
    none="bert.model.heads:MaskedLanguageHead",
)
LAYERS = Table(post="bert.model.layer:PostNormLayer", pre="bert.model.layer:PreNormLayer")
NORMS = Table(layer="bert.model.norms:layer_norm", rms="bert.model.norms:rms_norm")
POSITIONS = Table(
    learned="bert.model.positions:LearnedPositions",
    sinusoidal="bert.model.positions:SinusoidalPositions",
    rotary="bert.model.positions:RotaryPositions",
)
PROBLEM_TYPES = Table(
    single_label="bert.model.outputs:cross_entropy",
    multi_label="bert.model.outputs:binary_cross_entropy",
    regression="bert.model.outputs:squared_error",
)
"""What a classifier's labels are, and its loss."""
SCORERS = Table(
    original="bert.inference.scoring:ORIGINAL",
    within_word_l2r="bert.inference.scoring:WITHIN_WORD_L2R",
)
"""Which tokens a masked-language model does not see when it scores one of a sentence."""

EMBEDDING_POOLING: Literal["mean", "cls", "max"] = "mean"
"""how one vector is made from those of a text's tokens, unless asked otherwise"""

Activation = Annotated[str, ACTIVATIONS]
ProblemType = Annotated[str, PROBLEM_TYPES]


@dataclass(frozen=True)
class EncoderConfig:
    RECIPES = "model"

    vocab_size: PositiveInt = 30522
    """number of tokens the model reads and predicts; in pretraining always that of the tokenizer"""
    pad_vocab_multiple: PositiveInt = 1
    """round the rows of the embedding table up to a multiple of this; never predicted, trimmed on export"""
    hidden_size: PositiveInt = 256
    """width of every token's vector"""
    embedding_size: PositiveInt | None = None
    """width of the embeddings, which a projection widens to hidden_size (ALBERT); null is hidden_size, unprojected"""
    num_layers: PositiveInt = 4
    """number of encoder layers"""
    num_layer_groups: PositiveInt | None = None
    """so many groups of neighbouring layers share their weights (ALBERT: 1, all share); null: none share"""
    num_heads: PositiveInt = 4
    """attention heads; each is hidden_size / num_heads wide"""
    num_kv_heads: PositiveInt | None = None
    """heads of keys and values, each shared by several of the queries (grouped-query attention); null is num_heads"""
    intermediate_size: PositiveInt = 1024
    """width between the two projections of a feed-forward"""
    max_positions: PositiveInt = 512
    """longest sequence, in tokens"""
    num_segments: NonNegativeInt = 2
    """rows of the segment embedding (A and B of a pair); 0 has none"""
    num_tasks: NonNegativeInt = 0
    """rows of the task embedding (ERNIE), whose first row is added unless task_type_ids are given; 0 has none"""
    positions: Annotated[str, POSITIONS] = "learned"
    """position embeddings: a trained table, sines and cosines, or rotation of queries and keys (RoPE)"""
    position_offset: NonNegativeInt = 0
    """index of the first position in a learned table (RoBERTa: 2)"""
    rotary_base: PositiveFloat = 10000.0
    """base of the rotary wavelengths"""
    rotary_base_local: PositiveFloat | None = None
    """base of the rotary wavelengths in local layers; null is rotary_base"""
    norm: Annotated[str, LAYERS] = "post"
    """post: layer norm after each residual sum (BERT); pre: before attention and feed-forward, and once at the end"""
    norm_kind: Annotated[str, NORMS] = "layer"
    """layer: layer norm (Ba et al. 2016); rms: without the mean (Zhang and Sennrich 2019), which has no bias"""
    norm_eps: PositiveFloat = 1e-12
    """added to the variance inside a norm"""
    norm_bias: bool = True
    """layer norms have a bias"""
    embedding_norm: bool = True
    """the embeddings are normed; Megatron's BERT leaves that to the first layer"""
    first_norm_identity: bool = False
    """no layer norm before the first attention, because the embeddings are normed already (ModernBERT)"""
    feed_forward: Annotated[str, FEED_FORWARDS] = "mlp"
    """mlp: two projections; glu: a gated unit, whose first projection is twice as wide"""
    activation: Activation = "gelu"
    """activation function of the feed-forward; gelu is exact"""
    attention_bias: bool = True
    """projections of the attention have biases"""
    feed_forward_bias: bool = True
    """projections of the feed-forward have biases"""
    layer_pattern: str = "G"
    """attention of the layers: G is global, L is local, within the window; repeated over the layers, e.g. GLL"""
    window: PositiveInt = 128
    """sliding window of local layers, its total width: a token sees window/2 tokens on either side"""
    dropout: Probability = 0.1
    """dropout of the embeddings and of each sub-layer's output"""
    attention_dropout: Probability = 0.1
    """dropout of the attention probabilities"""
    embedding_dropout: Probability | None = None
    """dropout of the embeddings; null is dropout"""
    pooler: bool = True
    """EncoderModel has a pooler: a projection and tanh of the first token"""
    head: Annotated[str, HEADS] = "transform"
    """what comes before the decoder: projection, activation and norm (BERT); two projections with activations; none"""
    head_width: PositiveInt | None = None
    """width between the projections of head=two_layer; null is hidden_size"""
    head_activation: Activation | None = None
    """activation function of the prediction head; null is activation"""
    head_bias: bool = True
    """the prediction head's projection has a bias"""
    decoder_bias: bool = True
    """the decoder has a bias per token"""
    tied_decoder: bool = True
    """the decoder's weights are the token embeddings; if not, it has weights of its own"""
    classifier: Annotated[str, CLASSIFIERS] = "pooler"
    """head of a classifier before its last projection: as in BERT (pooler), RoBERTa (dense), ModernBERT (transform),
    DistilBERT (relu), ELECTRA and EuroBERT (gelu); or none"""
    pooling: Literal["cls", "mean", "late"] = "cls"
    """what a sequence classifier reads: the first token, the mean of all tokens, or their mean after the head"""
    layer_mix: bool = False
    """heads read a learnt mix of all layers instead of the last one; transformers has no such models"""
    classifier_dropout: Probability | None = None
    """dropout before a classifier's last projection; null is dropout"""
    init_std: PositiveFloat = 0.02
    """standard deviation of the initial weights (normal, cut at two standard deviations)"""
    init_outputs: Literal["plain", "depth_scaled", "zero"] = "plain"
    """initial output projections of attention and feed-forward: as the rest, divided by sqrt(2 num_layers), or zero"""
    backend: Literal["auto"] | Annotated[str, BACKENDS] = "auto"
    """implementation of attention; auto chooses by device, layout and dropout"""
    gradient_checkpointing: bool = False
    """gradient checkpointing: recompute each layer in the backward pass; less memory, about a third more time"""
    pad_token_id: NonNegativeInt = 0
    """id of the padding token; in pretraining always that of the tokenizer"""
    family: Annotated[str, FAMILIES] | None = None
    """architecture of transformers that checkpoints are written as, where several compute the same, e.g. xlm-roberta;
    null is the first of them"""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}; take a divisor"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads: {self.num_kv_heads} does not divide num_heads {self.num_heads}; take a divisor"
            )
        if self.norm_kind == "rms" and self.norm_bias:
            raise ValueError("norm_bias: norm_kind=rms has no bias; set it to false")
        if self.num_layer_groups is not None and self.num_layers % self.num_layer_groups:
            raise ValueError(
                f"num_layer_groups: {self.num_layer_groups} does not divide num_layers {self.num_layers}"
            )
        if self.embedding_width != self.hidden_size and self.head != "transform":
            raise ValueError("embedding_size: only head=transform leads back to the width of the embeddings")
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"num_heads: rotary positions need an even head width, here {self.head_size}")
        if not self.layer_pattern or set(self.layer_pattern) - set("GL"):
            raise ValueError(
                f"layer_pattern: {self.layer_pattern!r} is not made of G and L; for instance GLL"
            )
        if self.position_offset and self.positions != "learned":
            raise ValueError("position_offset: only learned positions have an offset; set it to 0")
        if self.first_norm_identity and self.norm != "pre":
            raise ValueError("first_norm_identity: only norm=pre has a norm before the first attention")
        if self.first_norm_identity and self.num_layer_groups not in (None, self.num_layers):
            raise ValueError(
                "first_norm_identity: layers that share their weights are all alike; set it to false"
            )
        if self.attention_dropout and self.backend in ("varlen", "flex"):
            raise ValueError(
                f"backend: {self.backend} has no dropout inside; set attention_dropout=0 or backend=auto"
            )

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def qkv_heights(self) -> tuple[int, int, int]:
        """Rows of the projections for queries, keys and values, which lie one after the other in one matrix."""
        of_keys = self.kv_heads * self.head_size
        return self.hidden_size, of_keys, of_keys

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.hidden_size

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table."""
        return -(-self.vocab_size // self.pad_vocab_multiple) * self.pad_vocab_multiple

    @property
    def windows(self) -> tuple[int | None, ...]:
        """One entry for each layer: None for global attention, w for the w // 2 tokens on either side."""
        pattern = self.layer_pattern
        return tuple(
            self.window if pattern[i % len(pattern)] == "L" else None for i in range(self.num_layers)
        )


@dataclass(frozen=True)
class Labels:
    """The classes of a classifier."""

    names: tuple[str, ...]
    problem_type: ProblemType = "single_label"

    def __len__(self) -> int:
        return len(self.names)
