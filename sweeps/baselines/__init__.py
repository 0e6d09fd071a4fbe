"""Published models trained as published."""
