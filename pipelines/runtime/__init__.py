"""The process that trains: its backend, device, threads and files."""
