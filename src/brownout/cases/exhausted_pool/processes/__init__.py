"""The processes of the case, each a program of its own: `python -P -m processes.load`.

They are started with the folder above on the path, so that this package stands alone: what fails
(downstream) and what says how it was (load) never import brownout, and neither do the shop and the
caller that go without it. What makes it fail (proxy) uses `brownout.fault`, and has no guard.
"""
