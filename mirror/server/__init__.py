"""HTTP in: the /v2/ protocol, sending files, and the admin port."""
