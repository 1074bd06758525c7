"""An adapter in the published form is what a real vLLM serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tasks.engines.adapter_probe import check_applied, make_probe
from tasks.engines.base import ModelConfig
from tasks.engines.chat_server import ChatServer
from tests.tasks.engines.vllm.serving import KEY, STARTER, needs_vllm, serving

pytestmark = needs_vllm
