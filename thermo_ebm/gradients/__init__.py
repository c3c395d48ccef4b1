"""What is measured of a learning gradient: its entries' statistics and its noise."""
