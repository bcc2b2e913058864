"""The IDE controller of a PC: two channels with two drives each."""
