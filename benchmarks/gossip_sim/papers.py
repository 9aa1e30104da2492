"""What the papers' figures show, read off: as text with its range, and the middle of that to draw."""

__all__ = ["FIRST", "HEAL", "RELIABILITY"]

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
