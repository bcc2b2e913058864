"""Host ends of screen, keyboard and mouse: what people and programs see them by."""
