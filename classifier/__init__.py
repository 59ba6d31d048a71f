"""SQL text to classification (being written)."""
