"""What a document is made of, and how two sides compare it: keys, entries, the put rule, reconciliation. No I/O."""
