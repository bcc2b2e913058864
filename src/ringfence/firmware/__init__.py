"""What a firmware leaves in memory for the guest, built without any I/O: bytes in, bytes out."""
