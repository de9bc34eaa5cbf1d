"""The fork server: a process that has imported what ranks import, and forks worlds."""
