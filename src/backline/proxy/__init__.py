"""Direct access to an LLM backend: what is passed on and how, and the HTTP client behind a port. Knows no ASGI."""
