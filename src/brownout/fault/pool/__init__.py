"""A pool of connections that is used up: its slots are really taken, and nobody is told.

with Pool(engine).make(HoldConnections(count=5)):
    ...  # five of its connections are in nobody's hands
"""

from .place import Pool

__all__ = ["Pool"]
