"""``tidings lookup``: where endpoints say where they are, by HTTP, and others ask, by HTTP and DNS."""
