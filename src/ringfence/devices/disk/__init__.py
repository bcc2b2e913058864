"""Disks and CD-ROMs by their command sets, whatever controller they hang on."""
