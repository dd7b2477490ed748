"""The command line: one file per command, human output, exit codes."""
