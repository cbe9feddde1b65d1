"""Arrays in, arrays out: free of web, database, settings, clock and global randomness."""
