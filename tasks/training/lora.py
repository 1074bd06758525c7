"""What is trained: an adapter in one of its forms, anew or from an earlier one, or all weights.

Forms: LoRA; rsLoRA, whose scale falls with the root of the rank (Kalajdzievski, 2023); DoRA, which also trains the
length of each weight vector (Liu et al., 2024); each on a base that is whole or quantized to 4 bits (QLoRA, Dettmers
et al., 2023).
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engines.config import ModelConfig
from tasks.engines.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_base, is_lora
from tasks.training.config import ADAPTER_FORM, TrainConfig
from tasks.training.processes.ranks import uses_gpu

if TYPE_CHECKING:
    import torch

    from tasks.training.job import Job

_THEIR_NAMES = {"lora_r": "r"}
"""In an adapter's config file, where they are not ours."""

_NEEDS_GPU = "train.quantization: 4bit needs a GPU, and none is used here; leave it out"
"""On a CPU bitsandbytes has no gradient for all that it computes."""


class AdapterFormError(ValueError):
    """What is to be trained cannot be, in one line."""


def form(config: TrainConfig) -> str:
    """What is trained, in words."""
    if not config.use_lora:
        return "all weights"
    names = [name for name, is_on in (("DoRA", config.use_dora), ("rsLoRA", config.use_rslora)) if is_on]
    base = ", on a base in 4 bits" if config.quantization == "4bit" else ""
    before = f", continued from {config.init_adapter.name}" if config.init_adapter else ""
    return f"{' and '.join(names) or 'LoRA'}, rank {config.lora_r}, alpha {config.lora_alpha}{base}{before}"


def check_form(config: TrainConfig, model: ModelConfig, output_dir: Path) -> None:
    """See, before anything is collected, that it can be trained.

    Raises:
        AdapterFormError: a package or a GPU is missing, or train.init_adapter is no adapter to go on from.
        ValueError: it is one of another model.
    """
    if config.quantization == "4bit":
        _check_4_bits(config)
    if config.init_adapter is None:
        return
    folder = config.init_adapter.expanduser().absolute()
    with_form_of_init(config)
    if folder == output_dir.expanduser().absolute():
        raise AdapterFormError(
            f"train.init_adapter: {folder} is also train.output_dir, and publishing would replace it; name another "
            "output folder"
        )
    check_base(folder, model, "train.init_adapter")


def _check_4_bits(config: TrainConfig) -> None:
    if not uses_gpu(config):
        raise AdapterFormError(_NEEDS_GPU)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise AdapterFormError(
            "train.quantization: 4bit needs bitsandbytes, which is not installed in this environment; "
            "pip install -e '.[qlora]', or leave it out"
        )


def with_form_of_init(config: TrainConfig) -> TrainConfig:
    """The config with the form of the adapter that it goes on from; the same config if it goes on from none.

    What the config does not set is taken from the adapter.

    Raises:
        AdapterFormError: there is no such adapter, or the config asks for another form, be it that of the defaults.
    """
    if config.init_adapter is None:
        return config
    folder = config.init_adapter.expanduser().absolute()
    if not is_lora(folder):
        raise AdapterFormError(
            f"train.init_adapter: {folder} holds no {ADAPTER_CONFIG}; give the folder of a LoRA adapter"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        beside = " but adapter_model.bin, a pickle, which may run any code; save it anew with peft" if pickled else ""
        raise AdapterFormError(f"train.init_adapter: {folder} holds no {ADAPTER_WEIGHTS}{beside}")
    try:
        saved = json.loads((folder / ADAPTER_CONFIG).read_text())
    except json.JSONDecodeError as error:
        raise AdapterFormError(f"train.init_adapter: {folder / ADAPTER_CONFIG} is not JSON: {error}") from None
    if saved.get("peft_type") != "LORA":
        raise AdapterFormError(f"train.init_adapter: {folder} is of the kind {saved.get('peft_type')}; wanted LORA")
    its = {name: saved.get(_THEIR_NAMES.get(name, name)) or type(getattr(config, name))() for name in ADAPTER_FORM}
    asked = {name: getattr(config, name) for name in its if name not in config.unset_form}
    if differing := [name for name in asked if asked[name] != its[name]]:
        found = ", ".join(f"{name} {asked[name]}" for name in differing)
        flags = " ".join(f"--train.{name} {str(its[name]).lower()}" for name in differing)
        raise AdapterFormError(
            f"train.init_adapter: {folder} has another form than the config wants ({found}); pass {flags}, or leave it "
            "out and begin a new adapter"
        )
    return config.model_copy(update={**its, "init_adapter": folder})


def load_model(job: Job, dtype: torch.dtype, device: torch.device) -> Any:
    """The model to train: the base in the precision that the device computes in, and an adapter in fp32.

    Steps of the optimizer are too small for bf16: most of them would be lost in rounding. So what is trained is fp32,
    and computed with in the model's precision; what is frozen never is.

    Raises:
        AdapterFormError: the adapter to go on from does not fit the model, or 4 bits are asked for without a GPU.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, GenerationConfig

    config = job.config
    if config.quantization == "4bit" and device.type != "cuda":
        raise AdapterFormError(_NEEDS_GPU)
    torch.manual_seed(config.seed)
    model = AutoModelForCausalLM.from_pretrained(
        job.model_folder,
        dtype=dtype if config.use_lora else torch.float32,
        trust_remote_code=job.trust_remote_code,
        **(_in_4_bits(dtype, device) if config.quantization == "4bit" else {}),
    )
    if not config.use_lora:
        # transformers reads some that it then refuses to write
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        return model
    if config.init_adapter is None:
        lora = LoraConfig(
            r=config.lora_r,
            lora_alpha=config.lora_alpha,
            use_dora=config.use_dora,
            use_rslora=config.use_rslora,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, lora)
    try:
        return PeftModel.from_pretrained(model, str(config.init_adapter), is_trainable=True)
    except (KeyError, TypeError, OSError, RuntimeError, ValueError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise AdapterFormError(
            f"train.init_adapter: {config.init_adapter} does not load onto {job.model_name}: {why}"
        ) from error


def _in_4_bits(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """How QLoRA holds a base: normal floats of 4 bits, whose scales are quantized again."""
    import torch
    from transformers import BitsAndBytesConfig

    quantized = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    place: Any = torch.cuda.current_device() if device.type == "cuda" else "cpu"
    return {"quantization_config": quantized, "device_map": {"": place}}
