"""The folder of a run: its layout, configuration, record, tables, events, pictures and lock."""
