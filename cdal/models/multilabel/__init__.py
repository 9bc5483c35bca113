"""Multi-label classification: any number of classes per image, each independent of the others."""
