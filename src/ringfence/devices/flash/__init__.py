"""Flash memory."""
