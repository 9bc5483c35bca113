"""What the jobs do, one kind a file: sync, train, score, select, queue."""
