"""Measuring networks on labelled images: protocols, crops, ensembles, reports."""
