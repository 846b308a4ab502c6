"""Passes from Program to Program; each result is verified."""
