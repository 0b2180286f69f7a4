"""Faults of a disk: some reads of some files hang and then fail, while writes succeed.

`place` holds the place, the other modules one part of it each. What `brownout.fault.undo` needs of them
is found without the place.
"""
