"""Servers that speak OpenAI's API: one or several of them, at the concurrency that suits them."""
