"""QUIC address discovery: a relay tells an endpoint from which address its packets come (``/iroh-qad/0``)."""
