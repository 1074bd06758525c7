"""Play episodes, keep what succeeded, and write a data file to look at and to train on later."""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command("flows.collect_only", RunConfig, __doc__, ["python -m flows.collect_only --env.name math_env"])
