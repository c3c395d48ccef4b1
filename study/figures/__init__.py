"""The figures of a report; `catalogue` lists them in its order."""
