"""What of an address may be shown, and which ones mean one place."""

from __future__ import annotations

import pytest

from tracking.addresses import holds_password, location_of, redacted, scrubbed


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
    ],
)  # fmt: skip
def test_a_password_in_an_address_is_seen(address, holds):
    assert holds_password(address) is holds


def test_two_addresses_of_one_place_are_equal():
    one = location_of("http://u:secret@h:5000/")
    assert one == location_of("http://h:5000") == location_of("http://other:***@h:5000")
    assert one != location_of("http://h:5001")
