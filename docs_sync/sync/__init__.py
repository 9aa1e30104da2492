"""Two nodes become the same: sessions, the connections between tidings nodes, who dials when, who follows what."""
