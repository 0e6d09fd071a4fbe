"""Paths that somebody names: what `~` means, and what cannot be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.files import UnusableFileError, named_path


def test_a_text_that_begins_with_a_tilde_means_a_home_and_any_other_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert named_path("~/x") == tmp_path / "x"
    assert named_path("./~x") == named_path(Path("~x")) == Path("~x")
    with pytest.raises(UnusableFileError, match="there is no user 'nosuchuser'"):
        named_path("~nosuchuser/x")


def test_what_can_be_nowhere_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for text in ("a\0b", "a" * 256, str(tmp_path / "file" / "below")):
        with pytest.raises(UnusableFileError):
            named_path(text)
    assert named_path(str(tmp_path / "not yet")) == tmp_path / "not yet"
