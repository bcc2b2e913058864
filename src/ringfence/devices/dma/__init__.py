"""Direct memory access of ISA devices."""
