"""What was seen, as lines of text and as JSON. Pure: nothing here reads, waits or writes."""
