"""PCI: configuration space and the functions in it."""
