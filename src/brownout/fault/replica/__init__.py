"""Copies that fall behind and go on answering: PostgreSQL, Redis and SQLite, and how far they truly are.

The places are in `postgres`, `redis` and `sqlite`; `lag` reads the truth.
"""
