"""Python names of what is compiled because guests reach it per byte, pixel or interrupt."""
