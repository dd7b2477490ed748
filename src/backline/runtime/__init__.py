"""Worker processes: starting, watching, replacing them, and handing them requests."""
