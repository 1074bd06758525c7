"""What stands before the first step: the data is tokenised, audited and compared with what was played.

No weights are loaded for it. What it tokenises is what the training process then finds in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.engines.chat_tokens import check_template_args, end_of_turn_id
from tasks.engines.config import ModelConfig
from tasks.engines.model_files import model_fingerprint, resolve_model
from tasks.training.config import TrainConfig
from tasks.training.gate.audit import Audit, audit
from tasks.training.gate.sent import compare_with_sent
from tasks.training.rows.token_data import token_data


def audit_data(data: Sequence[Path], model: ModelConfig, config: TrainConfig) -> Audit:
    """See that data files can be trained on, and what of them would be.

    Raises:
        DataFileError: a row cannot be trained on, with file:line.
        NothingToTrainError: no row is left to train on.
        TemplateArgsError: the model's chat template does not take its arguments.
        ModelNotFoundError: there is no such model.
    """
    from transformers import AutoTokenizer  # it takes seconds to import

    folder, arguments = resolve_model(model), model.chat_template_args
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    check_template_args(tokenizer, arguments)
    tokens = token_data(data, folder, tokenizer, arguments, config)
    found, _ = audit(tokens, data, tokenizer, end_of_turn_id(tokenizer, arguments), config)
    sent = compare_with_sent(tokens.counts.samples, data, model_fingerprint(model), tokenizer, arguments)
    return found.model_copy(update={"sent": sent})
