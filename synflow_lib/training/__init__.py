"""Recipes, the training loop, its learners and iterative magnitude pruning."""
