"""Scoring files with the same workers that serve requests."""
