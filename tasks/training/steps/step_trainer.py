"""A transformers `Trainer` that takes whole steps: the plan says which rows, memory says how many of them at once.

One call of `training_step` makes the gradient of one change of the weights: that of the mean loss over all trained
tokens of the step, on all devices. So it does not depend on how the rows were laid out.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from tasks.training.checkpoints.checkpointed_trainer import CheckpointedTrainer, StepAbandoned
from tasks.training.job import OutOfMemory
from tasks.training.progress.log import VALIDATION_LOSS
from tasks.training.rows.split import Indices
from tasks.training.rows.token_rows import TokenRows
from tasks.training.steps.fused_lora import fuse_lora
from tasks.training.steps.packed_attention import use_packed_attention
from tasks.training.steps.packing import MicroBatch, lay_out, split_rows
from tasks.training.steps.plan import StepPlan, deal
from tasks.training.steps.reply_loss import use_reply_loss

_NAMED_ROWS = 20
_ROWS_MEASURED_AT_ONCE = 256


class NoMemoryLeftError(RuntimeError):
    """GPU memory is not enough for one row at a time."""


class DivergedError(RuntimeError):
    """The loss or its gradient is not finite: from here on nothing would be learnt."""


class StepTrainer(CheckpointedTrainer):
    """Trains a causal model, or a peft model of one, on replies. `log` also gets tokens, trained_tokens and seconds.

    Args:
        validation: rows whose loss `evaluate` measures, if there are any.
        most_tokens: that one device reads at once; they are halved when they do not fit.
        pad_id: any token of the vocabulary, for models that cannot keep packed rows apart.
        on_out_of_memory: told whenever they are halved, in the first process.
        kwargs: as a `CheckpointedTrainer` takes them, with gradient_accumulation_steps=1 among its arguments.
    """

    def __init__(
        self,
        *,
        plan: StepPlan,
        rows: TokenRows,
        validation: TokenRows | None = None,
        most_tokens: int,
        pad_id: int,
        on_out_of_memory: Callable[[OutOfMemory], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset=range(len(rows)), **kwargs)
        model: Any = self.model
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.layout = use_packed_attention(causal)
        use_reply_loss(causal)
        fuse_lora(model)
        self.most_tokens = most_tokens
        self.out_of_memory: list[OutOfMemory] = []
        self._plan, self._rows, self._pad_id = plan, rows, pad_id
        self._validation = validation
        self._on_out_of_memory = on_out_of_memory
        self._step_counts: dict[str, int] = {}
        self._step_began = 0.0

    # Which rows

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One item for each step of a pass, only to be counted: the plan says what is in it."""
        return DataLoader(range(self._plan.steps_per_epoch), batch_size=1)  # type: ignore[arg-type]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Indices], None]:
        """The rows of the step that is due, the same whether it was resumed or not."""
        return [self._plan.rows(self.state.global_step)], None

    # The gradient of a step

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Leave the gradient of a step's rows in the parameters. Returns its mean loss over all devices, in nats.

        Raises:
            NoMemoryLeftError: one row at a time does not fit.
            DivergedError: the loss is not finite.
        """
        self._step_began = time.perf_counter()
        trained = int(self._rows.trained[inputs].sum())
        self._step_counts = {"tokens": int(self._rows.lengths[inputs].sum()), "trained_tokens": trained}
        model.train()
        hands = [inputs[hand] for hand in deal(self._rows.lengths[inputs].tolist(), self.accelerator.num_processes)]
        random_state = _random_state(self.args.device)
        while True:
            try:
                loss, fitting = self._add_up(model, hands, trained)
            except StepAbandoned:
                _restore(random_state, self.args.device)
                raise
            loss, is_whole = self._over_devices(loss, fitting is None)
            if is_whole:
                break
            model.zero_grad()
            self._read_less(fitting)
            _restore(random_state, self.args.device)
        if isinstance(model, DistributedDataParallel):
            _sum_gradients(model)
        if not math.isfinite(loss):
            self._stop(f"the loss is {loss}")
        return torch.tensor(loss, device=self.args.device)

    def _add_up(self, model: Any, hands: Sequence[Indices], trained: int) -> tuple[Tensor, int | None]:
        """This device's part of the gradient. Returns its part of the loss and, if memory ran out, how many tokens may
        fit: half of those that did not, or 0 where that was one row.
        """
        is_plain = isinstance(model, DistributedDataParallel) or len(hands) == 1
        # What shards a model takes the mean over devices; elsewhere gradients are added.
        scale = (1 if is_plain else len(hands)) / trained
        total = torch.zeros((), device=self.args.device)
        micro_batches = list(self._micro_batches(self._rows, hands, is_plain))
        for at, (batch, weight) in enumerate(micro_batches):
            self.abandon_step_if_told_to()
            is_reduced = not is_plain and at == len(micro_batches) - 1
            self.accelerator.gradient_state._set_sync_gradients(is_reduced or is_plain)
            try:
                with nullcontext() if is_reduced else self.accelerator.no_sync(model):
                    loss = self._loss(model, batch)
                    self.accelerator.backward(loss * (weight * scale))
                total += loss.detach() * (weight / trained)
            except torch.OutOfMemoryError:
                if not is_plain:
                    raise  # other devices wait for a part of this model, and it cannot be begun anew
                return total, 0 if batch.num_rows == 1 else batch.num_tokens // 2
        return total, None

    def _micro_batches(
        self, rows: TokenRows, hands: Sequence[Indices], is_plain: bool
    ) -> Iterator[tuple[MicroBatch, float]]:
        """What this device reads at once, with the weight of its loss.

        Devices that hold parts of one model must call it equally often, and do so with a weight of 0.
        """
        this = self.accelerator.process_index
        layouts = {at: self._layouts(rows, hand) for at, hand in enumerate(hands) if at == this or not is_plain}
        own = layouts[this]
        yield from ((batch, 1.0) for batch in own)
        if not is_plain:
            yield from [(layouts[0][-1], 0.0)] * (max(map(len, layouts.values())) - len(own))

    def _layouts(self, rows: TokenRows, places: Indices) -> list[MicroBatch]:
        read = rows.read(places) if len(places) else []  # there may be more devices than rows
        groups = split_rows(read, self.most_tokens, self.layout)
        return [lay_out([read[at] for at in group], self.layout, self._pad_id) for group in groups]

    def _loss(self, model: Any, batch: MicroBatch) -> Tensor:
        """Summed over the trained tokens of a micro batch."""
        batch = batch.to(self.args.device)
        loss: Tensor = model(input_ids=batch.input_ids, places=batch.places, targets=batch.targets, **batch.body)
        return loss

    def _over_devices(self, loss: Tensor, is_whole: bool) -> tuple[Any, bool]:
        """The loss over all devices, and whether none of them ran out of memory."""
        if self.accelerator.num_processes > 1:
            both = torch.stack([loss, torch.full_like(loss, float(not is_whole))])
            dist.all_reduce(both)
            loss, is_whole = both[0], not both[1].item()
        return loss.item(), is_whole

    def _read_less(self, fitting: int | None) -> None:
        """Go on with less at once, on all devices. `fitting`: None on a device that had memory enough."""
        gc.collect()
        if self.args.device.type == "cuda":
            torch.cuda.empty_cache()
        agreed = torch.tensor(self.most_tokens if fitting is None else fitting, device=self.args.device)
        if self.accelerator.num_processes > 1:
            dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
        before, self.most_tokens = self.most_tokens, int(agreed.item())
        if not self.most_tokens:
            raise NoMemoryLeftError(
                f"out of memory with one row at a time in step {self.state.global_step + 1} of {self.state.max_steps}"
            )
        event = OutOfMemory(step=self.state.global_step + 1, tokens_before=before, tokens=self.most_tokens)
        self.out_of_memory.append(event)
        if self.is_world_process_zero():
            self._on_out_of_memory(event)

    # What is looked at

    def mean_loss(self, rows: TokenRows) -> float:
        """Mean loss of other rows' trained tokens, in nats, with the weights as they are; the same on all devices."""
        model: Any = self.model_wrapped
        was_training = model.training
        model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for begin in range(0, len(rows), _ROWS_MEASURED_AT_ONCE):
                places = np.arange(begin, min(begin + _ROWS_MEASURED_AT_ONCE, len(rows)))
                hands = [places[hand] for hand in deal(rows.lengths[places].tolist(), self.accelerator.num_processes)]
                for batch, weight in self._micro_batches(rows, hands, is_plain=False):
                    if self.state.global_step:  # before the first step there is nothing to save
                        self.abandon_step_if_told_to()
                    total += weight * self._loss(model, batch)
        model.train(was_training)
        if self.accelerator.num_processes > 1:
            dist.all_reduce(total)
        return total.item() / int(rows.trained.sum())

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure and log the loss of the validation rows. A `Trainer` calls it when a callback has asked for it."""
        assert self._validation is not None
        found = {VALIDATION_LOSS: self.mean_loss(self._validation)}
        self.log(found)
        self.control.should_evaluate = False  # the end of a step is the end of a pass, too
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As a `Trainer` does, with what the step took."""
        if "loss" in logs:
            logs = {**logs, **self._step_counts, "seconds": time.perf_counter() - self._step_began}
        super().log(logs, start_time)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if norm is not None and not math.isfinite(norm):
            self._stop(f"the norm of the gradient is {float(norm)}")
        return norm

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the step's rows are not tensors."""
        return 0

    def _stop(self, found: str) -> None:
        places = self._plan.rows(self.state.global_step)
        named = ", ".join(self._rows.where(places[:_NAMED_ROWS]))
        more = f" and {len(places) - _NAMED_ROWS} more" if len(places) > _NAMED_ROWS else ""
        raise DivergedError(
            f"{found} at step {self.state.global_step + 1} of {self.state.max_steps}; nothing was published. Lower "
            f"train.learning_rate, or look at the rows of this step: {named}{more}"
        )


def _sum_gradients(model: DistributedDataParallel) -> None:
    """Add up the gradients of all processes, of which one may have had no rows."""
    waiting = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            waiting.append(dist.all_reduce(parameter.grad, async_op=True))
    for reduced in waiting:
        reduced.wait()


def _random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _restore(state: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
