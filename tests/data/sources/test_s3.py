"""What becomes of a request to S3: tried again or told, and never with a secret in what is told."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from images import write
from s3_server import CREDENTIALS, Faulty, S3Server

from imagier.data.sources.object_store import ObjectStoreSource, S3Folder, open_remote
from imagier.data.sources.s3 import Bucket, Patience, read_credentials
from imagier.errors import UserError

pytestmark = pytest.mark.usefixtures("no_credentials")

KINDS = {"images": "png", "seg_maps": "png"}


def never(seconds: float) -> None:
    pytest.fail("tried again")


AT_ONCE = Patience(pause=never)


def line(work: Any) -> str:
    """The one line of a mistake."""
    with pytest.raises(UserError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("trouble", [503, 500, 429, "cut", "hang up"])
def test_what_passes_is_tried_again_with_longer_and_longer_pauses(
    root: Path, server: S3Server, trouble: str | int
) -> None:
    way = Faulty(server, ["pass", *[trouble] * 4])
    pauses: list[float] = []
    bucket = Bucket("bucket", way.credentials, Patience(first_s=1, longest_s=4, pause=pauses.append))
    path = "set/metadata.json"
    assert bucket.read(path) == bucket.read(path) == (root / "bucket" / path).read_bytes()
    assert way.requests == ["pass", *[trouble] * 4, "pass"]
    assert all(longest / 2 <= pause <= longest for pause, longest in zip(pauses, [1, 2, 4, 4], strict=True))
    way.close()


def test_an_outage_that_lasts_is_told_and_ends_with_one_line(
    server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    way = Faulty(server, ["pass"])
    bucket = Bucket("bucket", way.credentials, Patience(total_s=0.2, first_s=0.01))
    bucket.read("set/metadata.json")
    way.close()
    said = line(lambda: bucket.read("set/metadata.json"))
    assert said.startswith("s3://bucket/set/metadata.json: Could not connect to the endpoint URL")
    assert said.endswith("; gave up after 0.2 s")

    way = Faulty(server, [503] * 4)
    Bucket("bucket", way.credentials, Patience(first_s=2, pause=lambda s: None)).read("set/metadata.json")
    (told,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"s3://bucket/set/metadata.json: 503 \(503\), the server is busy or broken; trying again for up to \d+ s", told
    )
    way.close()


# What no patience mends


def test_what_does_not_pass_is_told_at_once_with_what_to_do(server: S3Server) -> None:
    def said(name: str, **credentials: Any) -> str:
        given = {key: value for key, value in {**server.credentials, **credentials}.items() if value is not None}
        return line(lambda: ObjectStoreSource(S3Folder(name, given, patience=AT_ONCE), KINDS))

    nowhere, host, secret = "http://127.0.0.1:9", "http://nowhere.invalid", "a-secret"
    lines = {
        "no-such/set": said("no-such/set"),
        "nothing there": said("bucket/nothing"),
        "no server": said("bucket/set", endpoint_url=nowhere),
        "no such host": said("bucket/set", endpoint_url=host),
        "no address": said("bucket/set", endpoint_url="nowhere"),
        "no region": said("bucket/set", region_name="no region"),
        "no credentials": said("bucket/set", aws_access_key_id=None, aws_secret_access_key=None),
        "half": said("bucket/set", aws_secret_access_key=None),
        "no bucket": said("my bucket/set"),
        "empty": said("s3:///set"),
    }
    assert not any(secret in text for text in lines.values())
    give = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or name a file with aws_credentials_file"
    elsewhere = "check the network, and endpoint_url if the server is not Amazon's"
    file = "s3://bucket/set/all_filenames.json"
    assert lines == {
        "no-such/set": "s3://no-such: no such bucket; check `roots`, and endpoint_url if the server is not Amazon's",
        "nothing there": f"{file}: no such object; check `roots`, and whether it was uploaded".replace(
            "set", "nothing"
        ),
        "no server": f'{file}: Could not connect to the endpoint URL: "{nowhere}/{file[5:]}"; {elsewhere}',
        "no such host": f'{file}: Could not connect to the endpoint URL: "{host}/{file[5:]}"; {elsewhere}',
        "no address": "s3://bucket: Invalid endpoint: nowhere; correct the credentials, endpoint_url or region_name",
        "no region": "s3://bucket: Provided region_name 'no region' doesn't match a supported format.; "
        "correct the credentials, endpoint_url or region_name",
        "no credentials": f"{file}: no credentials; {give}",
        "half": "s3://bucket: Partial credentials found in explicit, missing: aws_secret_access_key; "
        "correct the credentials, endpoint_url or region_name",
        "no bucket": "roots: 'my bucket/set' names no bucket; write bucket/folder",
        "empty": "roots: 's3:///set' names no bucket; write bucket/folder",
    }


def test_credentials_that_are_wrong_or_may_not_read_are_told_at_once(tmp_path: Path) -> None:
    """The server asks for permission after the requests that prepare it."""
    write(tmp_path / "bucket" / "file", b"x")
    server = S3Server(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="4")  # two fill the bucket
    iam = server.client("iam")
    iam.create_user(UserName="u")
    key = iam.create_access_key(UserName="u")["AccessKey"]
    mine = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    for credentials, expected in (
        (server.credentials, r"the credentials are not accepted \(InvalidAccessKeyId\); set AWS_ACCESS_KEY_ID and .*"),
        ({**server.credentials, **mine}, r"no permission \(AccessDenied\); allow s3:GetObject and .*"),
        (
            {**server.credentials, **mine, "aws_secret_access_key": "other"},
            r"the credentials .* \(SignatureDoesNotMatch\).*",
        ),
    ):
        said = line(lambda credentials=credentials: Bucket("bucket", credentials, AT_ONCE).read("file"))
        assert re.fullmatch(f"s3://bucket/file: {expected}", said)
        assert credentials["aws_secret_access_key"] not in said
    server.kill()


# Credentials


def test_credentials_come_from_the_environment_or_from_the_reference_s_file(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "credentials.json", json.dumps(server.credentials).encode())
    assert read_credentials(path) == server.credentials
    assert open_remote("bucket/set", KINDS, "object_store", credentials_file=str(path)).keys("images")
    for name in CREDENTIALS:
        variable = {"region_name": "AWS_DEFAULT_REGION"}.get(name, name.upper())
        monkeypatch.setenv(variable, CREDENTIALS[name])
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.credentials["endpoint_url"])
    assert open_remote("s3://bucket/set", KINDS, "object_store").keys("images")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "No such file or directory"),
        ("{'aws_secret_access_key': 'a-secret'}", r"1: not JSON; write \{.*\}"),
        ('"a-secret"', r"expected a mapping with some of api_version, aws_access_key_id, .*"),
        ('{"secret": "a-secret"}', r"unknown key 'secret'; there are api_version, .*, verify"),
        ('{"service_name": "a-secret"}', r"unknown key 'service_name'; .*"),
        ('{"aws_secret_access_key": ["a-secret"]}', "aws_secret_access_key: expected text"),
        ('{"use_ssl": "a-secret"}', "use_ssl: expected true or false"),
    ],
)
def test_a_file_of_credentials_that_is_none_is_told_without_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        write(tmp_path / "c.json", text.encode())
    said = line(lambda: read_credentials("c.json"))
    assert re.fullmatch(f"aws_credentials_file: {tmp_path}/c.json: ?{expected}", said)
    assert "a-secret" not in said


def test_what_to_install_is_told_where_boto3_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    said = line(lambda: open_remote("bucket/set", KINDS, "object_store"))
    assert said == "object stores are read with boto3, which is not installed: pip install imagier[s3]"
