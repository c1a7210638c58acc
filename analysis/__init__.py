"""From artifacts to tables and plots. Never imports torch."""
