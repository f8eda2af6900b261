"""A bucket that is spoken to as S3 is: what lies in it, and many objects brought or laid down at once.

Endpoint, region and credentials are found where boto3 always looks: AWS_* in the environment, then ~/.aws, then the
machine's role. Whoever uses no bucket does not import this module, and boto3 with it.
"""

import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from s3transfer.manager import TransferManager
from s3transfer.subscribers import BaseSubscriber

from ytrain.sources.bucket_faults import Redirected, changed, told
from ytrain_api.errors import SpecError, YTrainError

TELL_SECONDS = 1.0
"""How often a transfer tells how far it is."""

_TIMEOUTS = Config(connect_timeout=10, read_timeout=60)  # seconds; retries are boto3's, AWS_MAX_ATTEMPTS changes them


@dataclass(frozen=True)
class Object:
    """What a listing says of an object."""

    key: str
    size: int
    etag: str
    """Changes with the content; empty of a file that a gateway found on its disk."""
    changed: str
    """When it was last put there."""

    @property
    def state(self) -> str:
        """What tells its content from what lay there before."""
        return self.etag or self.changed


class Bucket:
    """One bucket.

    Args:
        where: what messages begin with, such as the URI.

    Raises:
        SpecError: the environment names a profile or an endpoint that cannot be.
    """

    def __init__(self, name: str, where: str) -> None:
        self.name = name
        self._where = where
        with told(where, name, "the endpoint"):
            try:
                # boto3 itself reads AWS_DEFAULT_REGION alone, other programs AWS_REGION.
                self._client: Any = boto3.Session(region_name=os.environ.get("AWS_REGION") or None).client(
                    "s3", config=_TIMEOUTS
                )
                self._client.meta.events.register("before-call.s3.HeadBucket", _refuse_redirect)
                self.endpoint = str(self._client.meta.endpoint_url)
                parts = urlsplit(self.endpoint)
                self._server = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
            except ValueError as error:
                if isinstance(error, BotoCoreError):  # of a region, whose words are botocore's
                    raise
                raise SpecError(
                    f"{where}: AWS_ENDPOINT_URL is no address, or AWS_MAX_ATTEMPTS no number. Write http://host:port "
                    "or https://host."
                ) from error
        self._told = partial(told, where, name, self._server)

    def list(self, prefix: str, *, subfolders: bool = True) -> list[Object]:
        """The objects whose keys begin with `prefix`, sorted by key; marks of empty folders are none.

        Args:
            subfolders: also those with a further `/` in the key.

        Raises:
            SpecError, TransientError: see `told`; as with every call that follows.
        """
        arguments = {"Bucket": self.name, "Prefix": prefix} | ({} if subfolders else {"Delimiter": "/"})
        with self._told():
            pages = self._client.get_paginator("list_objects_v2").paginate(**arguments)
            found = [_object(entry) for page in pages for entry in page.get("Contents", ())]
        return sorted((each for each in found if not each.key.endswith("/")), key=lambda each: each.key)

    def find(self, key: str) -> Object | None:
        """The object with exactly this key: the first one, where there is one, of all that begin with it."""
        with self._told():
            page = self._client.list_objects_v2(Bucket=self.name, Prefix=key, MaxKeys=1)
        return next((_object(entry) for entry in page.get("Contents", ()) if entry["Key"] == key), None)

    def read(self, key: str) -> bytes | None:
        """The content of a small object; None if there is none."""
        with self._told():
            try:
                content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
        return content

    def metadata(self, key: str) -> Mapping[str, str]:
        """What was said of an object when it was put there."""
        with self._told():
            said: Mapping[str, str] = self._client.head_object(Bucket=self.name, Key=key)["Metadata"]
        return said

    def write(self, key: str, content: bytes) -> None:
        """Put a small object."""
        with self._told():
            self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is none the less gone."""
        for key in keys:  # one by one: of a request for several, some servers demand the MD5 that boto3 left off
            with self._told():
                self._client.delete_object(Bucket=self.name, Key=key)

    def check_writable(self, key: str) -> None:
        """Refuse a bucket that takes nothing, or gives nothing up again, and leave it as it is.

        Args:
            key: where nothing ever lies. An upload is begun there and given up, and nothing is removed.
        """
        with self._told():
            upload = self._client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
            self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
        self.delete([key])

    def drop_unfinished(self, key: str) -> None:
        """Remove the parts that killed uploads of an object left, if these credentials may list them."""
        with suppress(YTrainError), self._told():
            # The whole key: MinIO finds none by a part of it.
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name, Prefix=key)
            for entry in [entry for page in pages for entry in page.get("Uploads", ()) if entry["Key"] == key]:
                self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=entry["UploadId"])

    def fetch(
        self, objects: Sequence[tuple[Object, Path]], tell: Callable[[str], None]
    ) -> Iterator[tuple[Object, Path]]:
        """Bring objects as they were listed, several at once; yields each as soon as its file is whole.

        Args:
            tell: hears every second how far it is; what it raises ends the transfer.
        """

        def begin(manager: Any, entry: tuple[Object, Path], heard: BaseSubscriber) -> Any:
            each, path = entry
            said = {"IfMatch": each.etag} if each.etag else {}
            return manager.download(
                self.name, each.key, str(path), extra_args=said, subscribers=[_AsListed(each), heard]
            )

        for each, path in self._transfer(begin, objects, sum(each.size for each, _ in objects), "here", tell):
            if not each.etag and self.find(each.key) != each:
                raise changed(f"{self._where}: {self._server}")
            yield each, path

    def upload(self, files: Sequence[tuple[Path, str, Mapping[str, str]]], tell: Callable[[str], None]) -> None:
        """Put files, several at once.

        Args:
            files: each with its key and what `metadata` will say of it.
            tell: as with `fetch`.
        """

        def begin(manager: Any, entry: tuple[Path, str, Mapping[str, str]], heard: BaseSubscriber) -> Any:
            path, key, said = entry
            return manager.upload(str(path), self.name, key, extra_args={"Metadata": dict(said)}, subscribers=[heard])

        total = sum(path.stat().st_size for path, _, _ in files)
        for _ in self._transfer(begin, files, total, "there", tell):
            pass

    def _transfer(
        self,
        begin: Callable[[Any, Any, BaseSubscriber], Any],
        entries: Sequence[Any],
        total: int,
        done: str,
        tell: Callable[[str], None],
    ) -> Iterator[Any]:
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        moved = _Moved(events)
        with self._told(), _Transfers(self._client) as manager:  # gives up what is under way if the block fails
            futures, told = {}, time.monotonic()
            for entry in entries:
                future = begin(manager, entry, moved)
                futures[future.meta.transfer_id] = (future, entry)
            while futures:
                with suppress(queue.Empty):
                    future, entry = futures.pop(events.get(timeout=TELL_SECONDS))
                    future.result()
                    yield entry
                if time.monotonic() - told >= TELL_SECONDS:
                    tell(f"{self._where}: {moved.bytes / 1e6:,.0f} of {total / 1e6:,.0f} MB {done}")
                    told = time.monotonic()


class _Transfers(TransferManager):  # type: ignore[misc]
    """Names the ETag in every request; by itself s3transfer does so only where it asks for parts of an object."""

    ALLOWED_DOWNLOAD_ARGS = (*TransferManager.ALLOWED_DOWNLOAD_ARGS, "IfMatch")


class _AsListed(BaseSubscriber):  # type: ignore[misc]
    """Saves asking again for size and ETag."""

    def __init__(self, listed: Object) -> None:
        self._listed = listed

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self._listed.size)
        future.meta.provide_object_etag(self._listed.etag)


class _Moved(BaseSubscriber):  # type: ignore[misc]
    """Counts bytes, and puts what is done in a queue; the manager's threads call it."""

    def __init__(self, done: "queue.SimpleQueue[Any]") -> None:
        self._done = done
        self.bytes = 0

    def on_progress(self, bytes_transferred: int, **_: Any) -> None:
        self.bytes += bytes_transferred  # a lost update of two threads only makes what is told a bit less

    def on_done(self, future: Any, **_: Any) -> None:
        self._done.put(future.meta.transfer_id)


def _refuse_redirect(**_: Any) -> None:
    """Only botocore asks this, after a redirect that names no region; redirected again, it would ask without end."""
    raise Redirected


def _object(entry: Mapping[str, Any]) -> Object:
    return Object(entry["Key"], entry["Size"], entry.get("ETag", ""), entry["LastModified"].isoformat())
