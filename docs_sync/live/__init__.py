"""Documents that are open: whole ones in their swarm, partial ones that follow, what other processes write."""
