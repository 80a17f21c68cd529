"""What goes from known models, against stated figures."""
