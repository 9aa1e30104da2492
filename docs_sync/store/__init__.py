"""Documents as rows: the put rule, the aggregate, queries, changes; each inside one transaction."""
