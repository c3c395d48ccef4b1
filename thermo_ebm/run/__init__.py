"""A run's folder: its layout, configuration, record, tables, events, pictures and lock."""
