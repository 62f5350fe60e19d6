"""HTTP to an endpoint and to wherever it leads: connections, redirects, bodies."""
