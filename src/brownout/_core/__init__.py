"""The part that decides. Pure: a function of what it is told.

No clock, thread, socket, await, randomness or logging: time, locks and chance come in as arguments.
"""
