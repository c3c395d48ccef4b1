"""From readings to tables, figures and the report. Imports the library; never the reverse."""
