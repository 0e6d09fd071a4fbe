"""What of an address may be shown, and which ones mean one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import InputError
from tracking.addresses import (
    UNREADABLE,
    check_readable,
    encoded,
    holds_password,
    is_readable,
    location_of,
    redacted,
    scrubbed,
)

WORST = "slash/Hash#Que?mark[br:"


def test_passwords_are_not_shown():
    assert redacted("postgresql://u:secret@h:5/db") == "postgresql://u:***@h:5/db"
    assert (
        redacted("postgresql://h/db?user=u&password=secret")
        == "postgresql://h/db?user=u&password=***"
    )
    assert "secret" not in scrubbed("API request to http://u:secret@h failed", "http://u:secret@h")


@pytest.mark.parametrize(
    ("address", "holds"),
    [
        ("postgresql://u:secret@h/d", True), ("postgresql://h/d?password=secret", True),
        ("postgresql://u@h/d", False), ("postgresql://u:***@h/d", False),
        ("postgresql://[bad", False), ("sqlite:///a.db", False),
        ("postgresql://u:***@h/d?password=secret", True), ("https://TOKEN@h/x", True),
        ("https://h/x?sig=abc", True), ("mysql://h/d?ssl_key=/a", False),
        ("postgresql://h/d?sslkey=/a&passfile=/b", False), ("wasbs://box@h/x", False),
        ("file:///home/me@work/mlruns", False), ("sqlite:////home/me@work/a.db", False),
    ],
)  # fmt: skip
def test_a_password_in_an_address_is_seen(address, holds):
    assert holds_password(address) is holds


def test_two_addresses_of_one_place_are_equal():
    one = location_of("http://u:secret@h:5000/")
    assert one == location_of("http://h:5000") == location_of("http://other:***@h:5000")
    assert one != location_of("http://h:5001")


def test_a_password_is_read_as_the_database_reads_it():
    address = f"postgresql+psycopg://me:{WORST}@h:5/db"

    assert redacted(address) == "postgresql+psycopg://me:***@h:5/db"
    assert location_of(address) == "postgresql+psycopg://h:5/db"
    assert encoded(address) == ("postgresql+psycopg://me:slash%2FHash%23Que%3Fmark%5Bbr%3A@h:5/db")
    assert encoded("postgresql://me@h/db") == "postgresql://me@h/db"


def test_a_token_in_place_of_a_user_is_not_shown():
    assert redacted("https://TOKEN@h:5/x") == "https://***@h:5/x"
    assert redacted("https://TOKEN:x-oauth-basic@h/x") == "https://***@h/x"


@pytest.mark.parametrize(
    "address",
    ["http://u:pa/ss@h", "http://u:pa#ss@h", "http://u:12/ss@h", "postgresql://u:pa@ss@h/d",
     "postgresql:u:secret@h/d", "http://u:pa[ss@h", "postgresql://u/x?y:secret@h/d"],
)  # fmt: skip
def test_what_no_parser_reads_is_refused_and_not_repeated(address):
    assert redacted(address) == UNREADABLE and not is_readable(address)
    assert scrubbed(f"no {address}", address) == f"no {UNREADABLE}"
    with pytest.raises(InputError, match="--storage must be an address that can be read") as error:
        check_readable(address, "--storage")
    assert "ss" not in str(error.value).replace("address", "").replace("password", "")


_SECRETS = st.text(
    st.sampled_from("aZ09/#?[]@:%&=;+ .\\'\"\u00e9\u2028-_~!$*,|<>{}^`"), max_size=12
).map(lambda text: f"Q9x{text}x9Q")
_SCHEMES = st.sampled_from(("postgresql+psycopg", "mysql", "mssql", "http", "https", "s3", "other"))
_NAMES = st.sampled_from(
    ("password", "passwd", "pwd", "pass", "token", "access_token", "secret", "sig", "signature",
     "api_key", "apikey", "api-key", "access_key", "AWSAccessKeyId", "X-Amz-Signature", "sas",
     "sslpassword", "p%61ss", "client_secret", "key", "auth", "credential")
)  # fmt: skip


@given(_SCHEMES, _SECRETS, _NAMES, st.sampled_from(("user", "query", "fragment", "token")))
def test_no_part_of_a_secret_is_ever_shown(scheme, secret, name, where):
    if where == "token":
        scheme = "https"
    address = {
        "user": f"{scheme}://me:{secret}@host:5/db",
        "query": f"{scheme}://host/db?a=1&{name}={secret.replace('&', '%26')}",
        "fragment": f"https://host/db#{name}={secret.replace('&', '%26').replace('#', '%23')}",
        "token": f"https://{secret.replace(':', '%3A')}@host/x",
    }[where]

    for shown in (redacted(address), scrubbed(f"failed: {address}", address)):
        assert "Q9x" not in shown and "x9Q" not in shown
    assert holds_password(address) or not is_readable(address)
    assert redacted(redacted(address)) == redacted(address)
    if holds_password(address):
        assert "Q9x" not in location_of(address)
        assert "Q9x" not in scrubbed(f"bad password {secret}", address)
