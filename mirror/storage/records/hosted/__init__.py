"""What is recorded of repositories of one's own, in SQLite or in PostgreSQL: one code for both."""
