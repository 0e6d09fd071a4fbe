"""Copies of an embedded store into a server, and their verification."""
