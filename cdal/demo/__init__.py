"""The demo: a real Label Studio and this backend on one machine, with images to label."""
