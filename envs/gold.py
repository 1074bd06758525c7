"""The gold check: does a player who knows the reference answers win? If not, the problem or its judge is broken."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread

from envs.base import Ask, Env, EnvConfig, Problem
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
    """Play one episode with reference replies; whether it succeeds. There is no deadline.

    Raises:
        RuntimeError: the env asks a role too often, or ends without a verdict.
        TypeError: it asks nobody.
    """
    play = env.play()
    asked: Counter[str] = Counter()
    try:
        asks = next(play)
        while True:
            _count(asks, asked, env)
            asks = play.send([env.gold(ask) for ask in asks])
    except StopIteration:
        pass
    if env.success is None:
        raise RuntimeError(f"{type(env).__name__}.play ended without setting success")
    return bool(env.success)


def _count(asks: Sequence[Ask], asked: Counter[str], env: Env) -> None:
    if not asks:
        raise TypeError(f"{type(env).__name__}.play yielded {asks!r}; wanted a list of asks, at least one")
    asked.update(ask.role for ask in asks)
    role, times = asked.most_common(1)[0]
    if times > env.config.max_turns:
        raise RuntimeError(f"{type(env).__name__} asked {role} for more than max_turns={env.config.max_turns} turns")


def check_gold(
    env_class: type[Env], problems: Sequence[Problem], config: EnvConfig, sandbox: Sandbox, workers: int = 2
) -> Iterator[GoldFailure | None]:
    """Play the reference answers: for each problem, in order, None or why its answer does not score success.

    An env that blocks holds this up for ever, but not the exit of Python.

    Raises:
        NotImplementedError: the env has no reference answers.
        ServiceError: the infrastructure failed.
    """

    def failure(problem: Problem) -> GoldFailure | None:
        try:
            if play_gold(env_class(problem, config, sandbox)):
                return None
            return GoldFailure(problem, explain_loss(problem, sandbox))
        except (ServiceError, NotImplementedError):
            raise
        except GradingError as error:
            return GoldFailure(problem, str(error))
        except Exception as error:  # whatever the row makes its judge do, the other rows are checked all the same
            return GoldFailure(problem, f"{type(error).__name__}: {error}")

    verdicts: list[Future[GoldFailure | None]] = [Future() for _ in problems]
    todo = deque(zip(problems, verdicts, strict=True))

    def work() -> None:
        while todo:
            try:
                problem, verdict = todo.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                verdict.set_result(failure(problem))
            except BaseException as error:
                verdict.set_exception(error)

    for _ in range(workers):
        Thread(target=work, daemon=True).start()
    try:
        for verdict in verdicts:
            yield verdict.result()
    finally:
        todo.clear()


def explain_loss(problem: Problem, sandbox: Sandbox) -> str:
    """What the judge has against the reference answer of a problem.

    Raises:
        GradingError: no answer to it can be judged.
    """
    if isinstance(problem, MathProblem):
        return f"the answer {problem.answer!r} is not read as equal to itself"
    if not isinstance(problem, CodeProblem):
        return "judged to be wrong"
    verdicts = judge(sandbox, problem.reference, problem.hidden_tests, problem.function, stop_at_first_failure=True)
    verdict, place = verdicts[-1], f"test {len(verdicts)} of {len(problem.hidden_tests)}"
    if verdict.status == "accepted":
        return "its solution passes all tests, but not as a reply"
    return " ".join(f"{place}: {verdict.status} {verdict.error or verdict.got}".split())
