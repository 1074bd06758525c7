"""The proof that a server applies an adapter: log-probabilities of a fixed text, there and in transformers here.

A server that leaves the adapter out answers as the bare model does, in perfectly good text, and nothing would tell.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.engines.base import EngineError, Message
from tasks.engines.config import ModelConfig

logger = logging.getLogger(__name__)

_QUESTION: Message = {"role": "user", "content": "What is 17 + 25? Reason step by step, then write a program for it."}
_REPLY = """First 17 + 20 = 37, then 37 + 5 = 42. The final answer is \\boxed{42}. To check: 42 - 25 = 17.
```python
def solve(numbers):
    total = 0
    for number in numbers:
        if number % 2 == 0 and number not in (3, 8):
            total += 2 * abs(number) - 1
    return max(total, 0)


print(solve([17, 25, -4]), sum(x * 7 for x in [1, 2, 3] if x > 1))
```
It walks through the list once, so it takes linear time. The capital of France is Paris, and Paris lies on the Seine;
hence <answer>the Seine</answer> is what was asked for. Moves: right, right, down, left, up. Search: who wrote Hamlet?
[{"args": [[1, 2, 3]], "expected": 6}, {"args": [[-7, 0, 12]], "expected": 31}] These tests cover the usual cases."""
"""Of many kinds, since an adapter may change some of them alone; long, since rounding averages out over tokens."""
_MAX_TOKENS = 480
_LEAST_EFFECT, _MOST_EFFECT = 0.5, 1.5
"""The effect in the server, as a multiple of the effect here: 1 if it is applied, 0 if it is not."""
_CLEAR_OF_ROUNDING = 2.0
"""An effect on a token of so many times its rounding. In bfloat16 the least change of weights changes all roundings, so
what an adapter seems to do is at first nothing but that, here and in the server, and each at its own places.
"""


class AdapterNotAppliedError(ValueError):
    """A server has an adapter, and answers as if it had not."""


@dataclass(frozen=True)
class Probe:
    """A text, and the log-probability of each of its tokens but the first."""

    ids: Sequence[int]
    base: Sequence[float]
    """By the bare model."""
    adapters: Mapping[str, Sequence[float]]
    """By the model with each adapter."""


def make_probe(model: ModelConfig, adapters: Mapping[str, Path]) -> Probe:
    """Compute a probe with transformers on the CPU, where it takes no memory from a server's GPU.

    Weights keep the precision that they have on disk, so it takes as much memory as the files are large. A folder that
    holds a whole model in place of an adapter is loaded as that.

    Raises:
        ValueError: the model or an adapter cannot be loaded.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.engines.chat_tokens import encode, prompt_token_ids
    from tasks.engines.model_files import is_lora, quiet_transformers, resolve_model

    quiet_transformers()
    folder = resolve_model(model)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    asked = prompt_token_ids(tokenizer, [_QUESTION], model.chat_template_args)
    ids = (asked + encode(tokenizer, _REPLY))[:_MAX_TOKENS]
    bare: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=model.trust_remote_code)
    bare.eval()

    def logprobs(of: Any) -> list[float]:
        with torch.inference_mode():
            logits = of(input_ids=torch.tensor([ids])).logits[0, :-1].float()
        return logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].tolist()  # type: ignore[no-any-return]

    base = logprobs(bare)
    with_adapter = {}
    for name, path in adapters.items():
        if not is_lora(path):
            whole: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype="auto", trust_remote_code=model.trust_remote_code
            )
            with_adapter[name] = logprobs(whole.eval())
            continue
        try:
            adapted = PeftModel.from_pretrained(bare, path).eval()
        except (KeyError, TypeError, OSError, RuntimeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"[:300]
            raise ValueError(f"the adapter {name} in {path} does not load onto {model.path}: {why}") from error
        with_adapter[name] = logprobs(adapted)
        bare = adapted.unload()
    return Probe(ids, base, with_adapter)


def check_applied(name: str, probe: Probe, base: Sequence[float], adapted: Sequence[float], server: str) -> None:
    """See that a server's log-probabilities with an adapter differ from the bare model's as they should.

    The difference that the server makes is projected onto the one that is expected, which takes out most of what its
    arithmetic does to both.

    Raises:
        AdapterNotAppliedError: they do not.
        EngineError: the server's figures are no numbers.
    """
    expected = [with_it - without for with_it, without in zip(probe.adapters[name], probe.base, strict=True)]
    served = [with_it - without for with_it, without in zip(adapted, base, strict=True)]
    if not all(map(math.isfinite, [*base, *adapted])):
        raise EngineError(f"{server}: log-probabilities of a fixed text are NaN or infinite; its weights are broken")
    size, rounding = math.hypot(*expected), math.dist(base, probe.base)
    if size <= _CLEAR_OF_ROUNDING * rounding:
        if not any(served):
            raise AdapterNotAppliedError(_not_applied(name, server, 0.0))
        logger.warning("the adapter %s changes so little that rounding hides whether %s applies it", name, server)
        return
    effect = sum(s * e for s, e in zip(served, expected, strict=True)) / size**2
    if not _LEAST_EFFECT <= effect <= _MOST_EFFECT:
        raise AdapterNotAppliedError(_not_applied(name, server, effect))
    logger.info("%s applies the adapter %s: %.2f of the effect that it has in transformers", server, name, effect)


def _not_applied(name: str, server: str, effect: float) -> str:
    return (
        f"the adapter {name} is loaded in {server} but not applied: on a fixed text it has {effect:.2f} of the effect "
        "that it has in transformers (wanted about 1.00). No reply was taken from it. Is it another adapter of that "
        "name, or of another base? --engine.kind in_process plays it without a server"
    )
