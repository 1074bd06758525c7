"""Whether vLLM can be started here at all. Imports nothing heavy: it is asked before anything else is done."""

from __future__ import annotations

import importlib.util
import shutil

from tasks.engines.vllm.config import VllmConfig


def check_vllm(config: VllmConfig) -> None:
    """See that vLLM can be started here.

    Raises:
        ValueError: it is not installed, or docker is not where an image is to be run.
    """
    if config.image is not None:
        if shutil.which("docker") is None:
            raise ValueError("engine.vllm.image: docker is not here to run it; install it, or leave the image out")
    elif importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "engine.kind: vLLM is not installed in this environment; pip install -e '.[vllm]', name an image by "
            "engine.vllm.image, or a server that runs already by engine.base_url"
        )
