"""ERNIE (Sun et al. 2019, 2020, 2021) as transformers' `ernie`: BERT, later with an embedding of the task."""

from dataclasses import replace

from bert.huggingface.bert import BERT, CONSTANT, SHAPE, class_names, encoder_names, head_names
from bert.huggingface.family import Field

ERNIE = replace(
    BERT,
    model_type="ernie",
    prefix="ernie",
    classes=class_names("Ernie"),
    constant={**CONSTANT, "family": "ernie"},
    config=(
        *SHAPE,
        Field(
            ours="num_tasks",
            theirs="task_type_vocab_size",
            default=3,
            read=lambda rows, theirs: rows if theirs.get("use_task_id") else 0,
            write=lambda ours: ours.num_tasks or 3,
        ),
        Field(
            ours="num_tasks",
            theirs="use_task_id",
            default=False,
            read=lambda used, theirs: theirs.get("task_type_vocab_size", 3) if used else 0,
            write=lambda ours: ours.num_tasks > 0,
        ),
    ),
    encoder={**encoder_names("ernie"), "encoder.embeddings.tasks": "ernie.embeddings.task_type_embeddings"},
    heads=head_names("ernie"),
)
