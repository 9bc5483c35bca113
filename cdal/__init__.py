"""Active learning for Label Studio by Contextual Diversity."""
