"""Model files in and out, the graph that passes rewrite, channel groups, and the routine that removes units."""
