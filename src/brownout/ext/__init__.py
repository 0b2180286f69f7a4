"""Adapters to other libraries. Each is imported by its own name, and imports nothing of its library."""
