"""Requests to S3 are retried, or end with a one-line error without secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from http_server import Faulty
from images import write
from logs import logged
from s3_server import CREDENTIALS, S3Server, credentials_for
from stores import NO_RETRY, catch

from imagier.data.sources.object_store import ObjectStoreSource, open_remote
from imagier.data.sources.remote import RemoteFolder
from imagier.data.sources.retry import RetryPolicy
from imagier.data.sources.s3 import S3Store, read_credentials

pytestmark = pytest.mark.usefixtures("no_credentials")

EXTENSIONS = {"images": "png", "seg_maps": "png"}


@pytest.mark.parametrize("trouble", [503, 500, 429, "cut", "hang up"])
def test_transient_failures_are_retried_with_growing_pauses(root: Path, server: S3Server, trouble: str | int) -> None:
    way = Faulty(server.port, ["pass", *[trouble] * 4])
    pauses: list[float] = []
    store = S3Store("bucket", credentials_for(way.port), RetryPolicy(first_s=1, longest_s=4, sleep=pauses.append))
    path = "set/metadata.json"
    assert store.read(path) == store.read(path) == (root / "bucket" / path).read_bytes()
    assert way.requests == ["pass", *[trouble] * 4, "pass"]
    assert all(longest / 2 <= pause <= longest for pause, longest in zip(pauses, [1, 2, 4, 4], strict=True))
    way.close()


def test_an_outage_that_lasts_is_logged_and_ends_with_one_line(server: S3Server) -> None:
    way = Faulty(server.port, ["pass"])
    store = S3Store("bucket", credentials_for(way.port), RetryPolicy(total_s=0.2, first_s=0.01))
    store.read("set/metadata.json")
    way.close()
    error = catch(lambda: store.read("set/metadata.json"))
    assert (error.where, error.code) == ("s3://bucket/set/metadata.json", "server-unreachable")
    assert error.advice.endswith("; gave up after 0.2 s")

    way = Faulty(server.port, [503] * 4)
    with logged() as lines:
        policy = RetryPolicy(first_s=2, sleep=lambda s: None)
        S3Store("bucket", credentials_for(way.port), policy).read("set/metadata.json")
    (line,) = lines
    assert line.startswith("s3://bucket/set/metadata.json: 503") and "trying again" in line
    way.close()


# Permanent failures


@pytest.mark.parametrize(
    ("name", "changes", "where", "code"),
    [
        ("no-such/set", {}, "s3://no-such", "no-such-bucket"),
        ("bucket/nothing", {}, "s3://bucket/nothing/all_filenames.json", "no-such-object"),
        ("bucket/set", {"endpoint_url": "http://127.0.0.1:9"}, "", "server-unreachable"),
        ("bucket/set", {"endpoint_url": "http://me:a-secret@127.0.0.1:9"}, "", "server-unreachable"),
        ("bucket/set", {"endpoint_url": "http://nowhere.invalid"}, "", "server-unreachable"),
        ("bucket/set", {"endpoint_url": "nowhere"}, "s3://bucket", "bad-client"),
        ("bucket/set", {"region_name": "no region"}, "s3://bucket", "bad-client"),
        ("bucket/set", {"aws_access_key_id": None, "aws_secret_access_key": None}, "", "no-credentials"),
        ("bucket/set", {"aws_secret_access_key": None}, "s3://bucket", "bad-client"),
        ("my bucket/set", {}, "roots", "bad-bucket-name"),
        ("s3:///set", {}, "roots", "bad-bucket-name"),
    ],
)
def test_permanent_failures_end_at_once_with_advice(
    server: S3Server, name: str, changes: dict[str, Any], where: str, code: str
) -> None:
    given = {key: value for key, value in {**server.credentials, **changes}.items() if value is not None}
    error = catch(lambda: ObjectStoreSource(RemoteFolder(S3Store(name, given, NO_RETRY)), EXTENSIONS))
    assert (error.where, error.code) == (where or "s3://bucket/set/all_filenames.json", code)
    assert error.advice
    assert "a-secret" not in str(error)


def test_wrong_credentials_and_missing_permissions_end_at_once(tmp_path: Path) -> None:
    """The server checks permissions only after the requests that fill it."""
    write(tmp_path / "bucket" / "file", b"x")
    server = S3Server(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="4")  # two fill the bucket
    iam = server.client("iam")
    iam.create_user(UserName="u")
    key = iam.create_access_key(UserName="u")["AccessKey"]
    mine = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    for credentials, code, name_in_s3 in (
        (server.credentials, "bad-credentials", "InvalidAccessKeyId"),
        ({**server.credentials, **mine}, "no-permission", "AccessDenied"),
        ({**server.credentials, **mine, "aws_secret_access_key": "other"}, "bad-credentials", "SignatureDoesNotMatch"),
    ):
        error = catch(lambda credentials=credentials: S3Store("bucket", credentials, NO_RETRY).read("file"))
        assert (error.where, error.code) == ("s3://bucket/file", code)
        assert name_in_s3 in error.what
        assert credentials["aws_secret_access_key"] not in str(error)
    server.kill()


# Credentials


def test_credentials_come_from_the_environment_or_from_the_reference_s_file(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "credentials.json", json.dumps(server.credentials).encode())
    assert read_credentials(path) == server.credentials
    assert open_remote("bucket/set", EXTENSIONS, "object_store", credentials_file=str(path)).keys("images")
    for name in CREDENTIALS:
        variable = {"region_name": "AWS_DEFAULT_REGION"}.get(name, name.upper())
        monkeypatch.setenv(variable, CREDENTIALS[name])
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.credentials["endpoint_url"])
    assert open_remote("s3://bucket/set", EXTENSIONS, "object_store").keys("images")


def test_storage_options_are_arguments_of_the_client_too(server: S3Server) -> None:
    options = server.credentials
    assert open_remote("bucket/set", EXTENSIONS, "object_store", storage_options=options).keys("images")
    error = catch(lambda: open_remote("s3://bucket/set", EXTENSIONS, "object_store", storage_options={"anon": True}))
    assert (error.where, error.code) == ("data.storage_options", "unknown-key")


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        (None, "", "cannot-read-credentials"),
        ("{'aws_secret_access_key': 'a-secret'}", ":1", "bad-credentials-file"),
        ('"a-secret"', "", "bad-credentials-file"),
        ('{"secret": "a-secret"}', "", "unknown-key"),
        ('{"service_name": "a-secret"}', "", "unknown-key"),
        ('{"aws_secret_access_key": ["a-secret"]}', "", "wrong-type"),
        ('{"use_ssl": "a-secret"}', "", "wrong-type"),
    ],
)
def test_a_wrong_credentials_file_is_an_error_that_does_not_show_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, line: str, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        write(tmp_path / "c.json", text.encode())
    error = catch(lambda: read_credentials("c.json"))
    assert (error.where, error.code) == (f"aws_credentials_file: {tmp_path}/c.json{line}", code)
    assert "a-secret" not in str(error)


def test_the_package_to_install_is_named_where_boto3_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    error = catch(lambda: open_remote("bucket/set", EXTENSIONS, "object_store"))
    assert error.code == "not-installed" and "imagier[s3]" in error.advice
