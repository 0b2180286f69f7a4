"""How well the judge names what is wrong: made-up streams, real labelled faults, others' rules beside."""
