"""What can be found out before hours of work: each check raises in one line what is wrong."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from envs.sandbox import open_sandbox
from flows.adapters import FolderError, adapter_folders, collecting_folders
from flows.config import RunConfig
from tasks.collect_shard import check_ray
from tasks.dataset.select import check_agent_ratios
from tasks.engines import engine_kind
from tasks.engines.chat_tokens import check_template_of
from tasks.engines.config import ModelConfig
from tasks.engines.model_files import resolve_model
from tasks.engines.scripted import scripted_engine
from tasks.engines.vllm.available import check_vllm
from tasks.rollout.collection import Collection
from tasks.training.config import TrainConfig
from tasks.training.launch import check_writable
from tasks.training.lora import check_form
from tasks.training.progress.trackers import check_trackers

MIN_FREE_BYTES = 200 * 1024**2


def check_playing(config: RunConfig) -> None:
    """See that there is a model to play, or a script, or a server that takes the key, and a sandbox.

    Raises:
        ValueError: there is none.
        EngineError: the server cannot be reached.
        SandboxError: untrusted code cannot be run here as the config wants.
    """
    open_sandbox(config.sandbox).close()
    kind = engine_kind(config.engine)
    if kind == "scripted":
        scripted_engine(config.engine)
    elif kind == "openai_http":
        _reach_server(config, {})
    else:
        _check_model(config.model)
        if kind == "vllm":
            check_vllm(config.engine.vllm)


def check_collecting(config: RunConfig) -> None:
    """See that episodes can be played and kept.

    Raises:
        ValueError: a problem file, the model, an adapter or a role is not there, or the data folder cannot be written.
    """
    check_playing(config)
    _check_collecting_adapters(config)
    check_agent_ratios(config.collect.agent_ratios or {}, config.play.env_class.seats_for(config.env))
    Collection.for_training(config.play, {})
    check_data_folder(config.data_dir)
    _check_workers(config)


def _check_workers(config: RunConfig) -> None:
    if config.collect.runner == "ray":
        check_ray()
    if config.collect.storage is not None:
        from tasks.rollout.store import check_store  # the client takes a while to import

        check_store(config.collect.storage)


def check_training(config: RunConfig) -> None:
    """See that there is a model to train, that the result can be written, and be played if it is to be compared.

    Raises:
        ValueError: there is not, or it cannot; or nothing is to be trained.
    """
    if config.train.dry_run:
        raise ValueError(
            "train.dry_run: this flow has nothing to look at before it has played; collect with flows.collect_only, "
            "then pass --train.dry_run true to flows.train_only"
        )
    if config.engine.kind == "openai_http" and config.evaluate.num_problems and not _server_takes_adapters(config):
        raise ValueError(
            "evaluate.num_problems: what is trained here cannot be loaded into the server at engine.base_url; let it "
            "load adapters (vLLM: --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True), or pass "
            "--evaluate.num_problems 0 and compare with flows.evaluate_only --engine.kind in_process"
        )
    _check_model(config.model)
    check_devices(config.train)
    for policy, folder in config.adapter_dirs.items():
        check_writable(folder)
        check_form(config.train_of(policy), config.model, folder)
    check_trackers(config.train.report_to)
    if config.train.use_dora and config.evaluate.num_problems and engine_kind(config.engine) in ("vllm", "openai_http"):
        raise ValueError(
            "train.use_dora: vLLM cannot serve DoRA adapters, so the result could not be compared; pass "
            "--engine.kind in_process, or --evaluate.num_problems 0"
        )
    if len(config.adapter_dirs) > 1 and (config.output_dir / "training_args.bin").is_file():
        raise FolderError(
            f"train.output_dir: {config.output_dir} holds a trained model, and the policies would be put inside of it; "
            "name another folder"
        )
    check_data_folder(config.data_dir)


def check_devices(config: TrainConfig) -> None:
    """See that there is what `train.accelerate_config` asks for.

    Raises:
        ValueError: there is not, or it is no such file.
    """
    if config.accelerate_config is not None:
        from tasks.training.processes.ranks import num_processes  # what it reads the file with takes seconds to import

        num_processes(config)


def check_evaluating(config: RunConfig) -> None:
    """See that held-out problems can be played.

    Raises:
        ValueError: the model or the problems are not there, or the data folder cannot be written.
    """
    if config.evaluate.num_problems:
        check_playing(config)
        Collection.for_evaluation(config.play, config.evaluate, {})
        check_data_folder(config.data_dir)


def check_adapters(config: RunConfig) -> dict[str, Path]:
    """The folder of the trained model of each policy that is to be evaluated, absolute.

    Raises:
        FolderError: there is none.
        ValueError: it is an adapter of another model than the config's, or not one that the server at base_url has.
        EngineError: that server cannot be reached.
    """
    given = config.evaluate.adapter_dir or config.output_dir
    folders = adapter_folders(config, given, "evaluate.adapter_dir")
    if not folders:
        raise FolderError(f"evaluate.adapter_dir: nothing is promoted in {given}; wanted a folder with a trained model")
    if config.engine.kind == "openai_http":
        _reach_server(config, folders)
    return folders


def _check_model(model: ModelConfig) -> None:
    """See that the model is there, and that its chat template takes what it is to be told."""
    resolve_model(model)
    if model.chat_template_args:
        check_template_of(model)


def _reach_server(config: RunConfig, adapters: Mapping[str, Path]) -> None:
    from tasks.engines.openai_http.engine import reach_server  # its client takes a while to import

    reach_server(config.engine, adapters)


def _check_collecting_adapters(config: RunConfig) -> None:
    folders = collecting_folders(config)
    if folders and config.engine.kind == "openai_http":
        _reach_server(config, folders)


def _server_takes_adapters(config: RunConfig) -> bool:
    from tasks.engines.openai_http.engine import takes_adapters

    return config.train.use_lora and takes_adapters(config.engine)


def check_data_folder(folder: Path) -> None:
    """See that files can be written in the data folder, which is made if need be, and that its disk is not full.

    Raises:
        FolderError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderError(
            f"collect.data_dir: cannot write in {folder}: {error.strerror}; give a folder that is yours"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise FolderError(
            f"collect.data_dir: {free // 1024**2} MiB are free in {folder}; wanted {MIN_FREE_BYTES // 1024**2} MiB"
        )
