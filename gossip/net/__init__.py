"""Topics over an endpoint: peers, connections, queues, and who is let in."""
