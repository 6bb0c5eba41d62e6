"""The words that several papers share: one class for each idea."""
