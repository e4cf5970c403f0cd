"""What is hidden of addresses in messages, and taken for a secret in options."""

from __future__ import annotations

import pytest

from imagier.errors import UserError, find_secrets, hide_secrets

HIDDEN = {
    "https://me:mine@host/a": "https://host/a",
    "HTTPS://mine@host/a": "HTTPS://host/a",
    "sftp://me:mine@host/a": "sftp://host/a",
    "s3://key:mi/ne@host/a, s3://key:mine@host": "s3://host/a, s3://host",
    "https://me:mi@ne@host:80/a": "https://host:80/a",
    "https://me:mine@[::1]:80/a": "https://[::1]:80/a",
    "https://host/a?x=1&sig=mine&y=2": "https://host/a?x=1&sig=***&y=2",
    "https://host/a?x=1;X-Api-Key=mine": "https://host/a?x=1;X-Api-Key=***",
    "gs://box/a?X-Goog-Signature=mine": "gs://box/a?X-Goog-Signature=***",
}

SHOWN = [
    "data/a&key=1",
    "data/a?key=1",
    "data//a:b@c",
    "https://[::1]:8080/pkg@1/",
    "https://host:8080/pkg@1/",
    "https://host/a:b@c",
    "https://host/a?mail=me@here&author=me",
    "abfs://box@account.dfs.core.windows.net/set",
    "https://host/a: no such folder; write to me:here@host",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_user_and_secrets_of_addresses_are_hidden(text: str) -> None:
    assert hide_secrets(text) == hide_secrets(hide_secrets(text)) == HIDDEN[text]
    assert "mine" not in str(UserError("is wrong", where=text))


@pytest.mark.parametrize("text", SHOWN)
def test_what_only_looks_like_a_secret_is_shown(text: str) -> None:
    assert hide_secrets(text) == text


def test_secrets_of_options_are_found_at_any_depth_below_their_names() -> None:
    options = {"a": [{"api-key": ["b"]}], "auth": {"login": "c", "ports": (1, "d")}, "e": "f", "token": ""}
    assert find_secrets(options) == ["b", "c", "d"]
