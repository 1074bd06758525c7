"""`python -m envs.problems check FILE --env.name math_env`: how many reference answers pass their own judge?"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from rich.progress import track

from envs import load_env_class
from envs.base import EnvConfig
from envs.faults import ServiceError
from envs.gold import check_gold
from envs.problems import files
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig


def check(source: str | None, env: EnvConfig, cpu_s: float, keep: Path | None) -> int:
    """Print which problems are left out and which reference answers fail. Returns the exit code: 0 if none fails.

    Raises:
        ValueError, OSError, NotImplementedError, ServiceError: the check cannot be made.
    """
    if keep is not None and (source is None or keep.exists()):
        raise ValueError(f"--keep: {keep} is there already" if source else "--keep: name a problem file to take from")
    if keep is not None and source is not None:
        _refuse_doubles(source)
    _print_what_is_left_out()
    env_class = load_env_class(env.name)
    env_class.seats_for(env)  # an env that cannot be played without options is refused once, not for each problem
    problems = env_class.problems_for(env, source, None)
    sandbox = open_sandbox(SandboxConfig(cpu_s=cpu_s))
    checked = track(
        check_gold(env_class, problems, env, sandbox), "checking reference answers", len(problems), transient=True
    )
    bad = [failure for failure in checked if failure is not None]
    print(f"{len(problems) - len(bad)} of {len(problems)} reference answers pass in {env.name}")
    for failure in bad:
        print(f"  fails: {failure.name}  {failure.reason}")
    if keep is not None and source is not None:
        failed = {failure.problem.hash for failure in bad}
        kept = {p.id or p.hash for p in problems if isinstance(p, files.FileProblem) and p.hash not in failed}
        print(f"{_keep(source, keep, kept)} rows are in {keep}")
    return 1 if bad else 0


def _print_what_is_left_out() -> None:
    handler = logging.StreamHandler(sys.stdout)
    files.logger.handlers = [handler]
    files.logger.propagate = False
    files.logger.setLevel(logging.INFO)


def _keep(source: str, path: Path, ids: Collection[str]) -> int:
    """Write the rows of `source` that are called by one of `ids` to a new file; how many they are."""
    rows = [row for where, row in files.read_rows(source) if files.row_id(where, row) in ids]
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    unfinished.rename(path)
    return len(rows)


def _refuse_doubles(source: str) -> None:
    """See that rows can be told apart by what they are called.

    Raises:
        ValueError: they cannot.
    """
    names = Counter(files.row_id(where, row) for where, row in files.read_rows(source))
    [(name, times)] = names.most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(f"--keep: {source} calls {times} rows {name!r}; give every row its own id")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m envs.problems", description="Problem files.")
    commands = parser.add_subparsers(dest="command", required=True)
    check_parser = commands.add_parser("check", help="play every reference answer and say which ones fail")
    check_parser.add_argument("file", nargs="?", help="a problem file or hub dataset; default: the built-in problems")
    check_parser.add_argument("--env.name", dest="env_name", default="code_env")
    check_parser.add_argument("--env.options", dest="options", default="{}", help='JSON, e.g. {"corpus": "docs.jsonl"}')
    check_parser.add_argument("--sandbox.cpu_s", dest="cpu_s", type=float, default=SandboxConfig().cpu_s)
    check_parser.add_argument(
        "--keep", type=Path, help="write the rows whose reference answers pass to this .jsonl file"
    )
    args = parser.parse_args()
    try:
        env = EnvConfig(name=args.env_name, options=json.loads(args.options))
        return check(args.file, env, args.cpu_s, args.keep)
    except (ValueError, OSError, NotImplementedError, ServiceError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
