"""A swarm of real endpoints under churn, for minutes: memory that grows, things left behind, messages that are lost."""
