"""Coming from Feast: a repository described, translated into declarations, written, and compared value by value."""
