"""Whether data can be trained on, said before a model is loaded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.dataset.reading import Located, read_records
from tasks.dataset.records import Funnel, Reason
from tasks.dataset.rows import DataFileError

__all__ = [
    "CheckReport",
    "DataFileError",
    "DistinctRows",
    "NothingToTrainOnError",
    "check_records",
    "check_something_kept",
]


class NothingToTrainOnError(ValueError):
    """No turn was kept. The message says how many succeeded and what to try."""


@dataclass(frozen=True)
class CheckReport:
    """Data files that can be trained on, counted."""

    rows: int
    """Each once."""
    duplicates: int
    """Rows that are left out because the same messages had come before."""
    rows_by_agent: dict[str, int]


class DistinctRows:
    """The rows of data files, checked, each once, in the order of the files. What is kept of a row is a hash."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.duplicates = 0
        """Rows that were passed over because the same messages had come before; of all once it is read to its end."""

    def __iter__(self) -> Iterator[Located]:
        """
        Raises:
            DataFileError: a row cannot be trained on (with file:line), or there are no rows at all.
        """
        self.duplicates = 0
        seen: set[bytes] = set()
        for located in read_records(self._paths):
            digest = hashlib.blake2b(located.record.content.encode(), digest_size=16).digest()
            if digest in seen:
                self.duplicates += 1
                continue
            seen.add(digest)
            yield located
        if not seen:
            names = ", ".join(map(str, self._paths))
            raise DataFileError(f"{names}: no rows; wanted at least one record; see the _stats.json beside it for why.")


def check_records(paths: Sequence[Path], heldout_hashes: Collection[str] = ()) -> CheckReport:
    """Read data files to their end, and see that they can be trained on, and that before and after will not be
    measured on problems that are trained on. Rows without a `problem_hash` in their metadata cannot be told, and pass.

    Raises:
        DataFileError: a row cannot be trained on (with file:line), some are of held-out problems, or there are none.
    """
    rows = DistinctRows(paths)
    by_agent: Counter[str] = Counter()
    shared = 0
    for record, *_ in rows:
        by_agent[record.metadata.agent_name] += 1
        shared += record.metadata.problem_hash in heldout_hashes
    report = CheckReport(by_agent.total(), rows.duplicates, dict(sorted(by_agent.items())))
    if shared:
        raise DataFileError(
            f"{shared} of {report.rows} rows are of problems that are held out to compare before and after; give "
            "another --env.benchmark, leave these rows out, or train without a comparison: --evaluate.num_problems 0"
        )
    return report


_REMEDIES: dict[Reason, str] = {
    "episode_failed": "--collect.only_success false, more episodes (--collect.num_episodes), easier problems "
    "(--env.dataset) or a bigger model (--model.path)",
    "agent_failed": "--collect.collect_mode env, --collect.only_success false, more episodes "
    "(--collect.num_episodes) or a bigger model (--model.path)",
    "not_trained": "other --env.roles: the agents that said most here only take part",
    "other_turn": "--collect.turns all",
    "episode_error": "to mend the environment: the journal holds every traceback",
    "truncated": "a higher --collect.max_tokens, or --collect.keep_truncated true",
    "empty_reply": "another model (--model.path): this one says nothing",
    "held_out": "an --env.dataset that shares no problems with --env.benchmark",
    "duplicate": "more problems (--env.dataset) or a higher --collect.temperature",
    "over_quota": "a higher --collect.max_per_problem",
    "agent_ratio": "other --collect.agent_ratios, or more episodes (--collect.num_episodes)",
}


def check_something_kept(funnel: Funnel, policy: str | None = None) -> None:
    """See that a selection left something to train on. `policy`: whose turns it was made from, if there are several.

    Raises:
        NothingToTrainOnError: it did not.
    """
    if funnel.kept:
        return
    rate = "" if funnel.success_rate is None else f" ({100 * funnel.success_rate:.1f} %)"
    errored = f", {funnel.errored} errored" if funnel.errored else ""
    why = ", ".join(f"{reason} {count}" for reason, count in funnel.rejected.items()) or "no turn was played"
    main: Reason = max(funnel.rejected, key=lambda r: funnel.rejected[r], default="episode_error")
    whom = f" for the policy {policy}" if policy else ""
    raise NothingToTrainOnError(
        f"nothing to train on{whom}: {funnel.succeeded} of {funnel.finished} finished episodes succeeded{rate}"
        f"{errored}, and 0 of {funnel.turns} turns were kept (rejected: {why}). Try {_REMEDIES[main]}."
    )
