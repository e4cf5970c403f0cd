"""A server that speaks S3, in a process of its own on loopback, which can be killed and started again.

`python s3_server.py FOLDER PORT` serves what lies in FOLDER/<bucket>/<key>, and prints its port once it does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

CREDENTIALS = {"aws_access_key_id": "someone", "aws_secret_access_key": "a-secret", "region_name": "us-east-1"}
IP = "127.0.0.1"


def credentials_for(port: int) -> dict[str, Any]:
    """What a client must be given to find a server at a port."""
    return {**CREDENTIALS, "endpoint_url": f"http://{IP}:{port}"}


class S3Server:
    """What lies in a folder, as buckets. Changes that are made through it are lost when it is killed."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """environment: more variables of the process, such as moto's INITIAL_NO_AUTH_ACTION_COUNT."""
        self.folder = folder
        self.environment = environment
        self.port = 0
        self.start()
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def credentials(self) -> dict[str, Any]:
        """What a client must be given to find it."""
        return credentials_for(self.port)

    def start(self) -> None:
        """Begins to start: from some moment on, it answers, at the port that it had before."""
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), str(self.port)],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def kill(self) -> None:
        """At once, with all connections."""
        self.process.kill()
        self.process.communicate()

    def client(self, service: str = "s3") -> Any:
        """A client of it, to look behind or change things."""
        from boto3.session import Session

        return Session().client(service, **self.credentials)

    @cached_property
    def s3(self) -> Any:
        """One that is made once."""
        return self.client()

    def new_bucket(self, files: dict[str, bytes]) -> str:
        """Makes a bucket that holds objects by their keys; returns its name."""
        bucket = f"bucket{len(self.s3.list_buckets()['Buckets'])}"
        self.s3.create_bucket(Bucket=bucket)
        for key, data in files.items():
            self.s3.put_object(Bucket=bucket, Key=key, Body=data)
        return bucket


def _serve(folder: Path, port: int) -> None:
    from boto3.session import Session
    from moto.server import ThreadedMotoServer

    loading = ThreadedMotoServer(IP, 0, verbose=False)  # two servers in a process serve the same buckets
    loading.start()
    endpoint = f"http://{IP}:{loading.get_host_and_port()[1]}"
    client = Session().client("s3", endpoint_url=endpoint, **CREDENTIALS)
    for bucket in folder.iterdir():
        client.create_bucket(Bucket=bucket.name)
        for path in bucket.rglob("*"):
            if path.is_file():
                client.put_object(Bucket=bucket.name, Key=path.relative_to(bucket).as_posix(), Body=path.read_bytes())
    serving = ThreadedMotoServer(IP, port, verbose=False)
    serving.start()
    print(serving.get_host_and_port()[1], flush=True)
    assert serving._thread is not None
    serving._thread.join()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
