"""What only the notebooks need: published numbers, experiments, figures, explorers."""
