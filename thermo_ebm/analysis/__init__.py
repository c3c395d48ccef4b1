"""From readings to tables, figures and the report. Reads files only."""
