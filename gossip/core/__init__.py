"""A topic at one node without a network: membership, broadcast, and the log that catches up. All of it sans-IO."""
