"""Many entries at once, and as they change: batches, watches, history, JSON Lines, folders."""
