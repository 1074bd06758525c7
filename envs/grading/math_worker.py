"""The process that compares mathematical answers, and that may be killed while it does.

Run as a script by `math_answer.py`, never imported. Lines of JSON: once `"ready"`, then for each
`{"answer": .., "gold": .., "cpu_s": ..}` on stdin a `true` or `false` on stdout. It ends where stdin ends, and by
itself once a request has used `cpu_s` seconds, so it outlives its host by no more than that.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

ADDRESS_SPACE_BYTES = 2 << 30

# Only LaTeX: math-verify reads other text by sympy's parse_expr, which is an eval.
EXTRACTION = (LatexExtractionConfig(boxed_match_priority=0),)


def main() -> None:
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # whatever a library prints is not a reply
        print('"ready"', file=replies, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            limit_cpu(request["cpu_s"])
            print(json.dumps(same(request["answer"], request["gold"])), file=replies, flush=True)


def limit_cpu(more_s: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + more_s), hard))


def same(answer: str, gold: str) -> bool:
    """Whether both parse and are equal. The library's own timeouts are off: it makes them with SIGALRM."""
    try:
        return bool(verify(read(gold), read(answer), timeout_seconds=None))
    except Exception:  # MemoryError and RecursionError among them: the answer is hostile, the worker goes on
        return False


def read(answer: str) -> list[Any]:
    return list(parse(f"\\boxed{{{answer}}}", extraction_config=EXTRACTION, parsing_timeout=None))


main()
