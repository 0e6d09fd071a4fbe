"""Recorded runs trained again and compared."""
