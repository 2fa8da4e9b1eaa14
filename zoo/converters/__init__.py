"""From the layouts in which others publish weights to this package's variables."""

from zoo.converters.assign import Assignment, Converter, assign, variable_names

__all__ = ["Assignment", "Converter", "assign", "variable_names"]
