"""What leaves a search as a file: tables, the field's standards, pictures, the head, all of it."""
