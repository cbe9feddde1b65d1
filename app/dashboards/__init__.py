"""What the dashboard and the report of a search show. Start reading at `moments`."""
