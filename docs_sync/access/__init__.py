"""Who may do what: tickets, the hook, shares, restricted documents, encryption."""
