"""The model card: `README.md` in the model folder, which says what the weights are, on what and how they were trained.

It is written with the weights. An evaluation that follows is put between two marks; the folder's content hash leaves
the card out, so the folder stays what it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from tasks.rollout.artifact import CARD_NAME, content_hash, publish_file
from tasks.training.gate.audit import Audit, audit_rows
from tasks.training.job import LOSS_CURVE, MERGED, TRAIN_LOG, Job, TrainCounts

logger = logging.getLogger(__name__)

_BEGIN, _END = "<!-- evaluation -->", "<!-- end of evaluation -->"
_NOT_TRAINED_WITH = {"data_path", "output_dir", "dry_run", "report_to", "accelerate_config"}


def card(job: Job, found: Audit, counts: TrainCounts, effect: float) -> str:
    """The card of a model that was not evaluated yet. `effect`: see `prove`."""
    name = job.output_dir.name
    parts = [
        _front_matter(job),
        f"# {name}",
        f"{_what(job, counts)} It was trained with Winnow on the replies of {found.rows:,} rows.",
        *_use(job, name),
        "## Data",
        _table(["file", "rows", "SHA-256"], _data_rows(job, found)),
        _table(["", ""], [row for row in audit_rows(found) if row[1]]),
        "## Training",
        f"![Loss over the steps]({LOSS_CURVE})",
        _table(["", ""], list(_training_rows(counts, effect))),
        f"Every step is in `{TRAIN_LOG}`. The config, whole in `run_config.yaml`:",
        f"```yaml\n{_config(job)}```",
        "## Evaluation",
        f"{_BEGIN}\nNot evaluated.\n{_END}",
    ]
    return "\n\n".join(parts) + "\n"


def add_evaluation(folder: Path, markdown: str) -> None:
    """Put an evaluation into a folder's card, in place of an earlier one.

    A card that somebody else wrote is left as it is, and so is one in a folder that cannot be written.
    """
    path = folder / CARD_NAME
    try:
        text = path.read_text(encoding="utf-8")
        before, begin, rest = text.partition(_BEGIN)
        _, end, after = rest.partition(_END)
        if begin and end:
            with publish_file(path) as tmp:
                tmp.write_text(f"{before}{_BEGIN}\n{markdown.strip()}\n{_END}{after}", encoding="utf-8")
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("the evaluation was not added to %s: %s", path, error.strerror)


def _front_matter(job: Job) -> str:
    facts: dict[str, object] = {
        "library_name": "peft" if job.config.use_lora else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["winnow", "sft", *(["lora"] if job.config.use_lora else [])],
    }
    if not _is_folder(job):  # elsewhere only names of the hub are of use
        facts = {"base_model": job.model_name, **facts}
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _what(job: Job, counts: TrainCounts) -> str:
    base = f"the model in the folder `{Path(job.model_name).name}`" if _is_folder(job) else f"`{job.model_name}`"
    return f"An adapter ({counts.form}) for {base}." if job.config.use_lora else f"{base}, all of its weights trained."


def _use(job: Job, name: str) -> list[str]:
    load = f'AutoModelForCausalLM.from_pretrained("{name}")'
    parts = [f"```python\nfrom transformers import AutoModelForCausalLM\n\nmodel = {load}\n```"]
    if not job.config.use_lora:
        return [*parts, f"`vllm serve {name}` serves it."]
    parts = [f"transformers (with peft) loads the base and puts the adapter on it:\n\n{parts[0]}"]
    if job.config.use_dora:
        serve = "vLLM cannot serve DoRA adapters."
    else:
        base = "BASE" if _is_folder(job) else job.model_name
        room = 1 << (job.config.lora_r - 1).bit_length()  # vLLM knows powers of two alone
        rank = f" --max-lora-rank {room}" if room > 16 else ""
        serve = f"`vllm serve {base} --enable-lora{rank} --lora-modules {name}={name}` serves it."
    merged = f" The whole model, with the adapter merged into it, is in `{MERGED}/`." if job.config.merge else ""
    return [*parts, serve + merged]


def _data_rows(job: Job, found: Audit) -> Iterator[Sequence[str]]:
    for path, share in zip(job.data, found.files, strict=True):
        yield f"`{path.name}`", f"{share.rows:,}", f"`{content_hash(path)}`"


def _training_rows(counts: TrainCounts, effect: float) -> Iterator[Sequence[str]]:
    yield "trained", counts.form
    yield "steps", f"{counts.steps:,}"
    yield "loss, first -> last", f"{counts.first_loss:.3f} -> {counts.last_loss:.3f}"
    if counts.validation:
        yield "validation loss, first -> last", str(counts.validation)
    yield "tokens per second", f"{counts.tokens_per_second:,.0f}"
    yield "log-probabilities of a fixed text change by", f"{effect:.2g} nats a token"


def _config(job: Job) -> str:
    settings = job.config.model_dump(mode="json", exclude=_NOT_TRAINED_WITH)
    if job.config.init_adapter is not None:
        settings["init_adapter"] = job.config.init_adapter.name
    return yaml.safe_dump({"train": settings}, sort_keys=False)


def _is_folder(job: Job) -> bool:
    return Path(job.model_name).is_absolute()


def _table(header: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> str:
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
