"""The part that waits: carries out what the core decides, under threads and under asyncio."""
