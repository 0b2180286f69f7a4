"""The cases: partial failures that run for real, each with its small service."""
