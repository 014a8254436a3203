"""The shipped launch files are what accelerate itself takes them for."""

import os
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, ParallelismConfig
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

from bert.config import yaml12

FILES = sorted((Path(__file__).parents[2] / "configs" / "accelerate").glob("*.yaml"))
COMMAND = ["-m", "pretrain", "configs/pretrain/x.yaml", "seed=1"]


def read(name: str, *words: str):
    """What `accelerate launch --config_file FILE` makes of a file: arguments, and the file's content."""
    file = next(file for file in FILES if file.stem == name)
    args = launch_command_parser().parse_args(["--config_file", str(file), *words, *COMMAND])
    return _validate_launch_command(args)[:2]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_key_is_an_argument_of_accelerate(file: Path) -> None:
    arguments = vars(launch_command_parser().parse_args(COMMAND))
    for section, values in yaml12.load(file.read_text()).items():
        if isinstance(values, dict):
            assert [key for key in values if key not in arguments] == [], section


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_leave_precision_and_accumulation_to_the_run(file: Path) -> None:
    args, _ = read(file.stem)
    assert args.mixed_precision == "no"
    assert int(args.gradient_accumulation_steps or 1) == 1
    assert args.training_script_args == COMMAND[2:]


@pytest.mark.parametrize(
    ("name", "kind", "processes", "machines"),
    [
        ("cpu", DistributedType.MULTI_CPU, 2, 1),
        ("single", DistributedType.NO, 1, 1),
        ("ddp", DistributedType.MULTI_GPU, 8, 1),
        ("two_nodes", DistributedType.MULTI_GPU, 16, 2),
        ("fsdp2", DistributedType.FSDP, 8, 1),
        ("fsdp2_hybrid", DistributedType.FSDP, 16, 2),
        ("deepspeed_zero2", DistributedType.DEEPSPEED, 8, 1),
        ("deepspeed_zero3", DistributedType.DEEPSPEED, 8, 1),
    ],
)
def test_each_file_asks_for_what_its_name_says(name: str, kind: str, processes: int, machines: int) -> None:
    args, config = read(name)
    assert config.distributed_type == kind
    assert (args.num_processes, args.num_machines or 1) == (processes, machines)
    assert args.multi_gpu is (kind == DistributedType.MULTI_GPU)
    assert args.use_deepspeed is (kind == DistributedType.DEEPSPEED)
    assert args.use_fsdp is (kind == DistributedType.FSDP)


def test_every_file_is_named_here() -> None:
    names = {
        "cpu",
        "single",
        "ddp",
        "two_nodes",
        "fsdp2",
        "fsdp2_hybrid",
        "deepspeed_zero2",
        "deepspeed_zero3",
    }
    assert {file.stem for file in FILES} == names


def test_words_after_the_file_come_first() -> None:
    assert read("ddp", "--num_processes", "4")[0].num_processes == 4
    args, _ = read("two_nodes", "--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    prepare_multi_gpu_env(args)  # turns them into the arguments of torch's launcher
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert args.rdzv_endpoint == "10.0.0.1:29500"


def test_cpu_processes_stay_on_the_cpu() -> None:
    _, environment = prepare_simple_launcher_cmd_env(read("cpu")[0])
    assert environment["ACCELERATE_USE_CPU"].lower() == "true"


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_hybrid"])
def test_sharding_is_fsdp2_by_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args, _ = read(name)
    for key, value in prepare_multi_gpu_env(args).items():
        if key not in os.environ:
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading is False
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.transformer_cls_names_to_wrap is None  # the model's own names count
    if name == "fsdp2_hybrid":
        assert args.use_parallelism_config
        assert ParallelismConfig().total_size == args.num_processes
        assert (ParallelismConfig().dp_replicate_size, ParallelismConfig().dp_shard_size) == (2, 8)
