"""An object store that speaks S3, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer


@contextmanager
def object_store(bucket: str) -> Iterator[dict[str, str]]:
    """A server that speaks S3, with one bucket; gives what LanceDB needs to reach it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        access = {"aws_access_key_id": "someone", "aws_secret_access_key": "something"}
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **access).create_bucket(Bucket=bucket)
        yield {**access, "aws_region": "us-east-1", "aws_endpoint": url, "allow_http": "true"}
    finally:
        server.stop()
