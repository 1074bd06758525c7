"""The proof that an adapter is applied, with a tiny model that plays the server's part."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.engines.adapter_probe import AdapterNotAppliedError, Probe, check_applied, make_probe
from tasks.engines.base import EngineError
from tasks.engines.config import ModelConfig
from tests.tasks.engines.adapters import random_adapter, without_effect


@pytest.fixture(scope="module")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    real = random_adapter(tiny_model, folder / "real")
    return {"real": real, "idle": without_effect(real, folder / "idle")}


@pytest.fixture(scope="module")
def probe(tiny_model: Path, folders: dict[str, Path]) -> Probe:
    return make_probe(ModelConfig(path=str(tiny_model)), folders)


def rounded(values: Sequence[float], by: float, seed: int = 0) -> list[float]:
    """The values as another machine's arithmetic might have them."""
    draw = random.Random(seed)
    return [value + draw.gauss(0.0, by) for value in values]


def check(probe: Probe, base: Sequence[float], adapted: Sequence[float], name: str = "real") -> None:
    check_applied(name, probe, base, adapted, "the server")


def test_a_probe_tells_an_adapter_from_the_bare_model(probe: Probe) -> None:
    assert len(probe.base) == len(probe.ids) - 1 > 100
    assert max(abs(a - b) for a, b in zip(probe.adapters["real"], probe.base, strict=True)) > 0.1
    assert probe.adapters["idle"] == pytest.approx(probe.base)


def test_an_adapter_that_is_applied_passes_whatever_rounding_does(probe: Probe) -> None:
    check(probe, probe.base, probe.adapters["real"])
    for seed in range(20):
        check(probe, rounded(probe.base, 0.02, seed), rounded(probe.adapters["real"], 0.02, seed + 100))


def test_an_adapter_that_is_left_out_is_caught_whatever_rounding_does(probe: Probe) -> None:
    with pytest.raises(AdapterNotAppliedError, match=r"adapter real is loaded in the server but not applied: .* 0\.00"):
        check(probe, probe.base, probe.base)
    for seed in range(20):
        with pytest.raises(AdapterNotAppliedError):
            check(probe, rounded(probe.base, 0.02, seed), rounded(probe.base, 0.02, seed + 100))


def test_an_adapter_at_the_wrong_scale_and_another_adapter_are_caught(probe: Probe) -> None:
    effect = [a - b for a, b in zip(probe.adapters["real"], probe.base, strict=True)]
    for scale in (-1.0, 0.25, 4.0):
        with pytest.raises(AdapterNotAppliedError):
            check(probe, probe.base, [b + scale * e for b, e in zip(probe.base, effect, strict=True)])
    shuffled = random.Random(0).sample(effect, len(effect))
    with pytest.raises(AdapterNotAppliedError):
        check(probe, probe.base, [b + e for b, e in zip(probe.base, shuffled, strict=True)])


def test_an_adapter_that_changes_next_to_nothing_passes_unless_the_server_changes_nothing_at_all(
    probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    base = rounded(probe.base, 0.02)
    check(probe, base, rounded(base, 1e-4), "idle")
    assert "so little that rounding hides" in caplog.text
    with pytest.raises(AdapterNotAppliedError):
        check(probe, base, base, "idle")


def test_what_rounding_alone_makes_of_a_weak_adapter_is_not_taken_for_its_effect(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After few steps of training the least change of weights changes every rounding in bfloat16, here and there."""
    coarse = tmp_path / "coarse"
    shutil.copytree(tiny_model, coarse)
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(coarse)
    weak = random_adapter(tiny_model, tmp_path / "weak", size=1e-4)
    here = make_probe(ModelConfig(path=str(coarse)), {"weak": weak})
    exact = make_probe(ModelConfig(path=str(tiny_model)), {"weak": weak})
    effect = [a - b for a, b in zip(here.adapters["weak"], here.base, strict=True)]
    true = [a - b for a, b in zip(exact.adapters["weak"], exact.base, strict=True)]
    assert math.hypot(*effect) > 5 * math.hypot(*true)  # nothing but rounding
    check(here, exact.base, exact.adapters["weak"], "weak")
    assert "so little that rounding hides" in caplog.text


def test_broken_weights_are_no_verdict_on_the_adapter(probe: Probe) -> None:
    with pytest.raises(EngineError, match="NaN or infinite"):
        check(probe, probe.base, [float("nan")] * len(probe.base))
