"""What each database of the upstream holds, kept fresh for the classifier."""
