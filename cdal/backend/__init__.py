"""The Label Studio side: protocol, client, label formats, jobs, store and queue."""
