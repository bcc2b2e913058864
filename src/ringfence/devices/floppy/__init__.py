"""The floppy disk controller and its drives."""
