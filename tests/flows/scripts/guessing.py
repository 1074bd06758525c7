"""A script for the scripted engine: it guesses, and keeps what it was asked."""

from tasks.engines.base import ChatRequest

requests: list[ChatRequest] = []


def reply(request: ChatRequest) -> str:
    requests.append(request)
    return f"It is \\boxed{{{request.seed % 100}}}."


def wrong_reply(request: ChatRequest) -> str:
    """No answer is negative."""
    return f"\\boxed{{-1}} seed {request.seed}"


reply_again = reply
