"""The loss at trained places alone is that of all logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tasks.training.steps import reply_loss


@pytest.mark.parametrize("weight_is_trained", [True, False])
def test_logits_that_are_made_a_few_at_a_time_give_the_same_loss_and_gradients(
    monkeypatch: pytest.MonkeyPatch, weight_is_trained: bool
) -> None:
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE", 7 * 50)  # rows of 50 logits, 7 at a time
    torch.manual_seed(0)
    targets = torch.randint(50, (25,))
    found = []
    for loss_of in (reply_loss._head_loss, lambda h, w, t: cross_entropy(h @ w.T, t, reduction="sum")):
        torch.manual_seed(1)
        hidden = torch.randn(25, 8, requires_grad=True)
        weight = nn.Parameter(torch.randn(50, 8), requires_grad=weight_is_trained)
        loss = loss_of(hidden, weight, targets)
        (3 * loss).backward()
        found.append([loss.detach(), hidden.grad, *([weight.grad] if weight_is_trained else [])])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_without_gradients_there_is_a_loss_still() -> None:
    hidden, weight, targets = torch.randn(4, 8), torch.randn(50, 8), torch.arange(4)
    with torch.no_grad():
        loss = reply_loss._head_loss(hidden, weight, targets)
    torch.testing.assert_close(loss, cross_entropy(hidden @ weight.T, targets, reduction="sum"))
