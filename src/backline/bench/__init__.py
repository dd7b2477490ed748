"""Puts load on a server and says what came of it."""
