"""Zones: processes in network namespaces of their own, and what happens to the packets between them.

`place` holds the places. `holder` starts the process that `router` is, which holds the namespaces and
carries every packet; `ground` makes them, `link` and `packet` decide what becomes of a packet. `enter`
starts a process in a zone, `worker` and `forward` are two of those. `residents` is what
`brownout.fault.undo` needs of it all.
"""
