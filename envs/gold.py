"""The gold check: does a player who knows the reference answers win? If not, the problem or its judge is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from envs.base import Env, EnvConfig, Problem
from envs.faults import ServiceError
from envs.grading import GradingError
from envs.grading.code_tests import judge
from envs.problems.files import FileProblem
from envs.problems.kinds import CodeProblem, MathProblem
from envs.sandbox.base import Sandbox


@dataclass(frozen=True)
class GoldFailure:
    """A problem whose reference answer does not score success."""

    problem: Problem
    reason: str

    @property
    def name(self) -> str:
        """What the problem's file calls it, or else its hash."""
        return (self.problem.id if isinstance(self.problem, FileProblem) else "") or self.problem.hash


def play_gold(env: Env) -> bool:
    """Play one episode with reference replies; whether it succeeds."""
    play = env.play()
    try:
        asks = next(play)
        while True:
            asks = play.send([env.gold(ask) for ask in asks])
    except StopIteration:
        return bool(env.success)


def check_gold(
    env_class: type[Env], problems: Sequence[Problem], config: EnvConfig, sandbox: Sandbox, workers: int = 2
) -> Iterator[GoldFailure | None]:
    """Play the reference answers: for each problem, in order, None or why its answer does not score success.

    Raises:
        NotImplementedError: the env has no reference answers.
        ServiceError: the infrastructure failed.
    """

    def failure(problem: Problem) -> GoldFailure | None:
        try:
            if play_gold(env_class(problem, config, sandbox)):
                return None
            return GoldFailure(problem, _explain(problem, sandbox))
        except (ServiceError, NotImplementedError):
            raise
        except GradingError as error:
            return GoldFailure(problem, str(error))
        except Exception as error:  # whatever the row makes its judge do, the other rows are checked all the same
            return GoldFailure(problem, f"{type(error).__name__}: {error}")

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(failure, problems)


def _explain(problem: Problem, sandbox: Sandbox) -> str:
    """What the judge has against the reference answer of a problem."""
    if isinstance(problem, MathProblem):
        return f"the answer {problem.answer!r} is not read as equal to itself"
    if not isinstance(problem, CodeProblem):
        return "judged to be wrong"
    verdicts = judge(sandbox, problem.reference, problem.hidden_tests, problem.function, stop_at_first_failure=True)
    verdict, place = verdicts[-1], f"test {len(verdicts)} of {len(problem.hidden_tests)}"
    if verdict.status == "accepted":
        return "its solution passes all tests, but not as a reply"
    return " ".join(f"{place}: {verdict.status} {verdict.error or verdict.got}".split())
