"""Copies of a local store into a server, and their verification."""
