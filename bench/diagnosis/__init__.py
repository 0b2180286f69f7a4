"""How well the judge names what is wrong: on made-up streams, on real labelled faults, beside others' rules."""
