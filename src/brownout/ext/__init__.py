"""Adapters to other libraries. Each is imported by its own name.

Those for httpx and for ASGI are handed the user's objects and import no library. Each of the others imports
the one that it is named for.
"""
