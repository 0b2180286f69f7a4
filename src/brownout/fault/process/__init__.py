"""Faults of a process: it is stopped, killed, frozen, starved, out of files, cut off.

`place` holds the places, the other modules one mechanism each. What `brownout.fault.undo` needs of them
is found without the places.
"""
