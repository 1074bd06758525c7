"""What people write: transformers' Trainer, batches padded to their longest row, the loss on all tokens.

plain_trainer.py MODEL TOKEN_FILES OUTPUT
"""

from __future__ import annotations

import sys

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from tests.benchmarks.training_clients.work import BATCHES_A_STEP, ROWS_AT_ONCE, SETTINGS

if __name__ == "__main__":
    model_folder, data, output = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    lora = LoraConfig(
        r=SETTINGS["lora_r"], lora_alpha=SETTINGS["lora_alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    arguments = TrainingArguments(
        output_dir=output,
        num_train_epochs=SETTINGS["num_train_epochs"],
        learning_rate=SETTINGS["learning_rate"],
        per_device_train_batch_size=ROWS_AT_ONCE,
        gradient_accumulation_steps=BATCHES_A_STEP,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32"), lora),
        args=arguments,
        train_dataset=load_dataset(data, split="train").select_columns(["input_ids"]),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train()
    trainer.save_model()
