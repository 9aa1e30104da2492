"""What the papers' figures show, read off: as text with its range, and the middle of that to draw."""

__all__ = ["FIRST", "HEAL", "RELIABILITY", "WHY"]

ALL = ("100 %", 1.0)
RELIABILITY = dict.fromkeys((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), ALL) | {
    0.9: ("99..100 %", 0.995),
    0.95: ("91 %", 0.91),
}
"""HyParView Fig. 2: by the share that failed."""

HEAL = dict.fromkeys((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), ("1", 1.0)) | {0.7: ("2", 2.0), 0.8: ("2", 2.0), 0.9: ("4", 4.0)}
"""HyParView Fig. 4: cycles; it does not go further."""

FIRST = dict.fromkeys((0.1, 0.2, 0.3, 0.4), ALL) | {
    0.5: ("95 %", 0.95),
    0.6: ("57..85 %", 0.71),
    0.7: ("15..30 %", 0.22),
    0.8: ("0 %", 0.0),
}
"""Plumtree Fig. 6a."""

WHY = """\
Where a value is not the paper's, and why (the runs: `python -m benchmarks.gossip_sim.differences`, differences.txt)
- Clustering counts a handful of triangles: 0.00092 is 31 among 25,000 links. Our overlays have as many as a random
  graph of degree 5, of any size: 10.7, deviation 3.3. If the paper counts a link between two neighbours in both
  directions its value is 15 triangles, which is no difference; which way it counts is not known to us. Shuffles
  during or after the joins change nothing: they do not touch active views.
- RMR of the first cycles: all our links are eager at first, so the first message is an eager push, and that is 3 by
  the paper's own count; every second copy prunes its link, so the next is 0. With four of a node's five links eager
  at first (a fanout of 4) the first is about 2.2, near the paper's 2.1. For 0.9 in its second cycle no reason was
  found.
- LDH, plain: not reproduced. The first message leaves a tree of shortest ways, so no way is longer than twice that;
  it grows only where links are swapped by announcements that overtake payloads, or where delays are left to chance.
- LDH, the paper's rule (a link is swapped that saves seven hops of one message): each sender bends the tree its own
  way, and it drifts. Ours asks that a link be shorter on average over the last messages that came along it, too.
- After failures we have no cycles: a node looks for neighbours at once, so healing takes one or two where the
  paper's takes up to four; at 95 % the rest is in pieces that no passive view joins."""
"""A guess is said to be one."""
