"""Encoders: what turns text and pictures into ids."""
