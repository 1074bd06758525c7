"""Journals in an object store, e.g. S3, for machines that share no folder. fsspec speaks to it.

An object store knows neither appending nor renaming; it puts whole objects. So a shard is a folder of segments there,
one for each group commit, each some whole lines under a name of its own:

    <url>/<collection key>/collection.json
    <url>/<collection key>/shard-0001-<id>.jsonl/00000000-<id>
    <url>/results/<collection key>/sft_data_....jsonl

A segment is never changed or replaced. Whoever owns the collection fetches the shards into its own folder, where the
rest of the program reads them. Credentials come from the environment, as the store's own client takes them.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from tasks.rollout.artifact import publish_file
from tasks.rollout.journal import IDENTITY, check_identity, identity_text
from tasks.rollout.plan import collection_key
from tasks.rollout.shard import ExplainedError


class StoreError(ExplainedError):
    """The object store did not do what it was asked. The message names it and says what it answered."""


class Store:
    """A place in an object store."""

    def __init__(self, url: str) -> None:
        """`url`: e.g. `s3://bucket/prefix`.

        Raises:
            ValueError: there is no client for such a URL here.
        """
        self.url = url.rstrip("/")
        try:
            # A listing that is kept would hide what others have put there since.
            self._fs, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"collect.storage: no client for {url} here: {error}; for S3: pip install -e '.[scale]'"
            ) from error

    def put(self, name: str, data: bytes) -> None:
        """Put an object, whole or not at all; once this returns, the store has it."""
        with self._explained(name):
            self._fs.pipe_file(f"{self._root}/{name}", data)

    def get(self, name: str) -> bytes | None:
        """What an object holds; None if there is none of that name."""
        with self._explained(name):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def sizes(self, name: str) -> dict[str, int]:
        """The names of all objects that begin with `name/`, in order, with their sizes in bytes."""
        with self._explained(name):
            found = self._fs.find(f"{self._root}/{name}", detail=True)
        return {path.removeprefix(f"{self._root}/"): found[path]["size"] for path in sorted(found)}

    def get_all(self, names: list[str]) -> bytes:
        """What several objects hold, one after the other; they are fetched at once."""
        paths = [f"{self._root}/{name}" for name in names]
        with self._explained(names[0] if names else ""):
            found = self._fs.cat(paths) if len(paths) > 1 else {path: self._fs.cat_file(path) for path in paths}
        return b"".join(found[path] for path in paths)

    def remove(self, name: str) -> None:
        with self._explained(name):
            self._fs.rm_file(f"{self._root}/{name}")

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # clients raise what they like, not only OSError
            failure = StoreError(f"{self.url}/{name}: {type(error).__name__}: {error}")
            failure.errno = errno.EACCES if isinstance(error, PermissionError) else None
            raise failure from error


class StoredCollection:
    """What an object store holds of a collection."""

    def __init__(self, store: Store, identity: Mapping[str, Any]) -> None:
        self._store, self._identity = store, identity
        self._name = collection_key(identity)

    def claim(self) -> None:
        """Write down what makes the episodes, or see that it is the same as before.

        Raises:
            JournalFileError: it is not.
        """
        name = f"{self._name}/{IDENTITY}"
        saved = self._store.get(name)
        if saved is None:
            self._store.put(name, identity_text(self._identity).encode())
        else:
            check_identity(saved.decode(), self._identity, f"{self._store.url}/{name}")

    def fetch(self, folder: Path) -> list[str]:
        """Bring all shards into a journal's folder. Returns their names."""
        shards: dict[str, list[tuple[str, int]]] = {}
        for segment, size in self._store.sizes(self._name).items():
            _, shard, *rest = segment.split("/")
            if rest:
                shards.setdefault(shard, []).append((segment, size))
        for shard, segments in shards.items():
            self._bring(folder / shard, segments)
        return list(shards)

    def fetch_shard(self, folder: Path, shard: str) -> None:
        """Bring one shard, as far as it is there."""
        self._bring(folder / shard, list(self._store.sizes(f"{self._name}/{shard}").items()))

    def sink(self, shard: str) -> Segments:
        """Where the one writer of a shard writes."""
        return Segments(self._store, f"{self._name}/{shard}")

    def _bring(self, path: Path, segments: list[tuple[str, int]]) -> None:
        size = sum(size for _, size in segments)
        if not size or (path.exists() and path.stat().st_size >= size):
            return  # segments never change, and what a store has lost or does not list yet is not taken away here
        with publish_file(path) as tmp:
            tmp.write_bytes(self._store.get_all([name for name, _ in segments]))


class Segments:
    """A shard in an object store: a `Sink`."""

    gather_s = 0.5  # every segment costs a request, and a store has only so many a second for all shards

    def __init__(self, store: Store, name: str) -> None:
        self.where = f"{store.url}/{name}"
        self._store, self._name, self._count = store, name, 0

    def append(self, data: bytes) -> None:
        # Should the store put this one after it seemed to have failed, it must not take another one's place.
        self._store.put(f"{self._name}/{self._count:08d}-{uuid.uuid4().hex[:8]}", data)
        self._count += 1

    def close(self) -> None:
        """Nothing is open."""


def check_store(url: str) -> None:
    """See that objects can be put.

    Raises:
        ValueError: they cannot.
    """
    store = Store(url)
    name = f".probe-{uuid.uuid4().hex[:8]}"
    try:
        store.put(name, b"")
        store.remove(name)
    except StoreError as error:
        raise ValueError(
            f"collect.storage: cannot write there: {error}; it needs the store's usual environment variables, for S3 "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if it is not Amazon's, AWS_ENDPOINT_URL"
        ) from error


def put_results(url: str, collection: str, files: list[Path]) -> None:
    """Put copies of finished files beside the journals, under their own names.

    Args:
        collection: the key of the one that they come from. Two that end in one second give their files one name.
    """
    store = Store(url)
    for file in files:
        store.put(f"results/{collection}/{file.name}", file.read_bytes())
