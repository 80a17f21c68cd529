"""Which units are proved stable, beside published and measured figures."""
