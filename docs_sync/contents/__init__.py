"""What entries point at: which contents are wanted, by which policy, and how they are fetched."""
