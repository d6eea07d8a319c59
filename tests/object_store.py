"""A real S3 API on the loopback, in a process of its own that ends with this one.

OFFRAMP_TEST_S3=http://127.0.0.1:7480 takes a server that is there, such as Ceph's gateway, with the keys
of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

SERVE = """
import sys
from moto import backends
from moto.server import ThreadedMotoServer
folders = tuple(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: folders  # which each request would list twice
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
GIVEN = os.environ.get("OFFRAMP_TEST_S3")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"] if GIVEN else "testing",
    "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"] if GIVEN else "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server that knows no bucket yet, or of the one that is given. Meanwhile what
    botocore's files say of S3 is read once: each client of each test would read them anew."""
    from botocore.loaders import JSONFileLoader

    load = JSONFileLoader.load_file
    once = functools.cache(lambda path: load(JSONFileLoader(), path))
    with pytest.MonkeyPatch.context() as patch, nullcontext(GIVEN) if GIVEN else _server() as address:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: once(path))
        yield address


@contextmanager
def _server() -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.stdin.close()
        server.stdout.close()
        server.kill()
        server.wait()


def make_bucket(endpoint: str, name: str) -> None:
    _client(endpoint).create_bucket(Bucket=name)


@functools.cache
def _client(endpoint: str) -> Any:
    """Made once, as that takes longer than what it is asked for."""
    from botocore.session import get_session

    return get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
