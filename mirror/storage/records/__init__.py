"""Small records beside the content: links, referrers, accounts."""
