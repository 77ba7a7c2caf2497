"""What runs and studies leave on disk: typed records, written atomically and loaded strictly."""
