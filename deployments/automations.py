"""Registers what automations.yaml describes, with the server at PREFECT_API_URL: `python -m deployments.automations`.

Where the notices go stands in the environment, for both addresses are secrets; at least one is needed:

    WINNOW_WEBHOOK_URL   is sent {"text": "..."}, as Slack, Mattermost and others take it
    WINNOW_MAIL_URL      an address of Apprise, e.g. mailtos://user:password@mail.example.org?to=team@example.org

They are kept in two blocks of the server, where they are encrypted. The same command again brings both up to date, so
it is also what is run after a change of automations.yaml; automations of other names are left alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

import yaml
from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from pydantic import SecretStr

AUTOMATIONS_YAML = Path(__file__).with_name("automations.yaml")


def main() -> int:
    """0, or 2 where the environment names no address."""
    blocks = register_blocks(os.environ)
    if not blocks:
        print("wanted WINNOW_WEBHOOK_URL, WINNOW_MAIL_URL or both in the environment; found neither", file=sys.stderr)
        return 2
    for automation in read_automations(blocks):
        register(automation)
        print(f"{automation.name}: {', '.join(action.type for action in automation.actions)}")
    return 0


def register_blocks(environment: Mapping[str, str]) -> dict[str, UUID]:
    """Save a block for each address that the environment has: their ids, by the names that automations.yaml uses."""
    made: dict[str, Block] = {}
    if url := environment.get("WINNOW_WEBHOOK_URL"):
        made["webhook"] = Webhook(url=SecretStr(url), headers={"Content-Type": "application/json"})
    if url := environment.get("WINNOW_MAIL_URL"):
        # Prefect has no block for SMTP; the one for Slack gives any address that is not Slack's to Apprise as it is.
        made["mail"] = SlackWebhook(url=SecretStr(url))
    return {name: UUID(str(block.save(f"winnow-{name}", overwrite=True))) for name, block in made.items()}


def read_automations(blocks: Mapping[str, UUID], path: Path = AUTOMATIONS_YAML) -> Iterator[AutomationCore]:
    """The automations of a file, with the ids of their blocks; actions whose block there is not are left out."""
    for entry in yaml.safe_load(path.read_text())["automations"]:
        actions = [action for action in entry["actions"] if action["block_document_id"] in blocks]
        for action in actions:
            action["block_document_id"] = blocks[action["block_document_id"]]
        yield AutomationCore.model_validate(entry | {"actions": actions})


def register(automation: AutomationCore) -> None:
    """Create an automation, or bring the one of its name up to date."""
    with get_client(sync_client=True) as client:
        if there := client.read_automations_by_name(automation.name):
            client.update_automation(there[0].id, automation)
        else:
            client.create_automation(automation)


if __name__ == "__main__":
    sys.exit(main())
