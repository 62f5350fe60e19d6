"""The rules of the OCI distribution-spec 1.1, one test each, named by the section that has them:
against a mirror as a process of its own, with the defaults of its configuration."""
