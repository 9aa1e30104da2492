"""Whole swarms of the gossip cores in virtual time, beside the papers' figures: ``python -m benchmarks.gossip_sim``."""
