"""The demo: Label Studio and this backend on one machine, with images to label."""
