"""Training on the CPU: Winnow beside TRL's `trl sft` command and a plain `Trainer`, on the same tokens.

Each is a process of its own, with as many threads; each round another one is first. A rate is reply tokens a second of
the training alone, without imports and loading, as transformers itself reports its time. Loss is that of the trained
adapter on all replies of the data, computed in the same way for all. TRL has its defaults; the plain Trainer pads to
the longest row of a batch and trains on all tokens. Last, the same training is called directly and by
`flows.train_only`: what Prefect, launching and the audit add to it, on a machine that has Prefect's database already.

Run by `make bench`, or: PYTHONPATH=. python tests/benchmarks/bench_training.py [--rounds N] [--rows N]. Exits with 1 if
a target is missed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.engines.openmp import as_given
from tasks.training.config import TrainConfig
from tasks.training.job import JOB_FILE
from tests.benchmarks.training_clients.work import (
    BATCHES_A_STEP,
    ROWS_AT_ONCE,
    SETTINGS,
    save_model,
    token_rows,
    write_data,
    write_token_files,
)
from tests.tasks.training.jobs import plain_job

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parent / "training_clients"
WINNOW, TRL, PLAIN = "Winnow", "trl sft", "plain Trainer"
MOST_OVERHEAD_S = 20
_REPORTED_TIME = re.compile(r"'train_runtime': '?([0-9.e+]+)")


@dataclass
class Side:
    """One way to train, and what it took in each round."""

    name: str
    adapter: Path
    seconds: list[float] = field(default_factory=list)
    peaks_mib: list[float] = field(default_factory=list)
    loss: float = 0.0


@dataclass(frozen=True)
class Ran:
    """What a process took, its children included."""

    wall_s: float
    peak_mib: float
    output: str


def run(command: list[str | Path], cache: Path) -> Ran:
    """A process to its end."""
    environment = {
        **as_given(os.environ),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment |= {"XDG_CACHE_HOME": str(cache), "HF_HOME": str(cache / "hf")}
    environment |= {"PREFECT_HOME": str(cache / "prefect")}  # nothing that was trained before is found again
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - began
        log.seek(0)
        output = log.read()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}:\n{output[-3000:]}")
    return Ran(wall_s, usage.ru_maxrss / 2**10, output)


class Workplace:
    """The model, the data and the commands of all sides, in one folder."""

    def __init__(self, folder: Path, num_rows: int) -> None:
        self.folder, self.cache, self.model = folder, folder / "cache", folder / "model"
        self.data, self.tokens = folder / "data.jsonl", folder / "tokens"
        os.environ["XDG_CACHE_HOME"] = str(self.cache)
        save_model(self.model)
        write_data(self.data, num_rows)
        self.rows = token_rows(self.data, self.model)
        write_token_files(self.rows, self.tokens)

    def winnow(self, output: Path) -> list[str | Path]:
        work_dir = self.folder / "work"
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir()
        config = TrainConfig.model_validate(self.settings)
        job = plain_job(self.model, self.data, config, output, work_dir, os.getpid(), model_name=str(self.model))
        (work_dir / JOB_FILE).write_text(job.model_dump_json())
        return [sys.executable, CLIENTS / "winnow_train.py", work_dir]

    @property
    def settings(self) -> dict[str, float]:
        batches = {"per_device_train_batch_size": ROWS_AT_ONCE, "gradient_accumulation_steps": BATCHES_A_STEP}
        return {**SETTINGS, **batches, "num_gpus": 0}

    def trl(self, output: Path) -> list[str | Path]:
        options = {
            "model_name_or_path": self.model,
            "dataset_name": self.tokens,
            "output_dir": output,
            "num_train_epochs": SETTINGS["num_train_epochs"],
            "learning_rate": SETTINGS["learning_rate"],
            "per_device_train_batch_size": ROWS_AT_ONCE,
            "gradient_accumulation_steps": BATCHES_A_STEP,
            "lora_r": SETTINGS["lora_r"],
            "lora_alpha": SETTINGS["lora_alpha"],
            "lora_target_modules": "all-linear",
            "completion_only_loss": True,  # it would see that by itself in text, and does not in tokens
            "report_to": "none",
        }
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [Path(sys.executable).with_name("trl"), "sft", *given, "--use_peft", "--use_cpu"]

    def plain(self, output: Path) -> list[str | Path]:
        return [sys.executable, CLIENTS / "plain_trainer.py", self.model, self.tokens, output]

    def flow(self, output: Path) -> list[str | Path]:
        flags = [part for name, value in self.settings.items() for part in (f"--train.{name}", str(value))]
        flags += ["--train.data_path", str(self.data), "--train.output_dir", str(output)]
        flags += ["--collect.data_dir", str(self.folder / "collected"), "--evaluate.num_problems", "0"]
        command = [sys.executable, "-m", "flows.train_only", "--env.name", "math_env", "--model.path", str(self.model)]
        return [*command, *flags]


def measure(console: Console, place: Workplace, num_rounds: int) -> list[Side]:
    """Each round another side is first."""
    commands = {WINNOW: place.winnow, TRL: place.trl, PLAIN: place.plain}
    sides = [Side(name, place.folder / name.replace(" ", "-")) for name in commands]
    for turn in range(num_rounds):
        for side in (*sides[turn % len(sides) :], *sides[: turn % len(sides)]):
            shutil.rmtree(side.adapter, ignore_errors=True)
            ran = run(commands[side.name](side.adapter), place.cache)
            side.seconds.append(float(_REPORTED_TIME.findall(ran.output)[-1]))
            side.peaks_mib.append(ran.peak_mib)
            console.print(f"round {turn + 1}: {side.name} {side.seconds[-1]:.1f} s of {ran.wall_s:.1f} s in all")
    for side in sides:
        side.loss = loss_of(place, side.adapter)
    return sides


def loss_of(place: Workplace, adapter: Path) -> float:
    """Mean over the reply tokens of all rows, by transformers and peft, one row at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(place.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()
    total = 0.0
    with torch.no_grad():
        for row in place.rows.read(range(len(place.rows))):
            ids = torch.from_numpy(row.input_ids)[None]
            labels = ids.clone()
            labels[:, : row.prompt_length] = -100
            total += float(model(input_ids=ids, labels=labels).loss) * (len(row.input_ids) - row.prompt_length)
    return total / int(place.rows.trained.sum())


def overhead_s(console: Console, place: Workplace) -> float:
    """How much longer the command takes than the same training called directly, each from start to end."""
    run([Path(sys.executable).with_name("prefect"), "server", "database", "upgrade", "-y"], place.cache)
    directly = run(place.winnow(place.folder / "directly"), place.cache)
    by_flow = run(place.flow(place.folder / "by-flow"), place.cache)
    assert (place.folder / "by-flow" / "adapter_model.safetensors").is_file(), by_flow.output
    console.print(f"called directly {directly.wall_s:.1f} s in all, by flows.train_only {by_flow.wall_s:.1f} s")
    return by_flow.wall_s - directly.wall_s


def show(console: Console, place: Workplace, sides: list[Side], added_s: float) -> bool:
    """Whether all targets are met."""
    winnow, trl, plain = sides
    trained = int(place.rows.trained.sum())
    table = Table(title=f"training {len(place.rows)} rows, {trained:,} reply tokens of {place.rows.lengths.sum():,}")
    for column in ("", "reply tokens/s, median", "worst", "best", "peak memory, MiB", "loss after it"):
        table.add_column(column, justify="right" if column else "left")
    for side in sides:
        rates = sorted(trained / seconds for seconds in side.seconds)
        shown = (statistics.median(rates), rates[0], rates[-1], statistics.median(side.peaks_mib))
        table.add_row(side.name, *(f"{value:,.0f}" for value in shown), f"{side.loss:.4f}")
    console.print(table)

    def times(other: Side) -> float:
        return statistics.median(b / a for a, b in zip(winnow.seconds, other.seconds, strict=True))

    others_peak = min(statistics.median(side.peaks_mib) for side in (trl, plain))
    found = [
        ("reply tokens/s, times trl sft's", times(trl), 1.5, True),
        ("reply tokens/s, times the plain Trainer's", times(plain), 2.0, True),
        ("peak memory, times the lower of theirs", statistics.median(winnow.peaks_mib) / others_peak, 1.0, False),
        ("loss after it, off trl sft's", abs(winnow.loss / trl.loss - 1), 0.02, False),
        ("seconds that the command adds", added_s, MOST_OVERHEAD_S, False),
    ]
    verdicts = Table(title="targets")
    for column in ("", "wanted", "found", "verdict"):
        verdicts.add_column(column, justify="right" if column else "left")
    for text, value, bound, is_least in found:
        met = value >= bound if is_least else value <= bound
        verdicts.add_row(
            text,
            f"{'>=' if is_least else '<='} {bound:g}",
            f"{value:.3g}",
            "[green]met[/]" if met else "[red]MISSED[/]",
        )
    console.print(verdicts)
    return all(value >= bound if is_least else value <= bound for _, value, bound, is_least in found)


def main(num_rounds: int, num_rows: int) -> int:
    import torch

    console = Console(width=110)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), num_rows)
        sides = measure(console, place, num_rounds)
        added_s = overhead_s(console, place)
        return 0 if show(console, place, sides, added_s) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="trainings by each side")
    parser.add_argument("--rows", type=int, default=128, help="rows of the data")
    given = parser.parse_args()
    sys.exit(main(given.rounds, given.rows))
