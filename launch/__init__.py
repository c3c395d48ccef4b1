"""The programs. All absl flags of the project are defined here."""
