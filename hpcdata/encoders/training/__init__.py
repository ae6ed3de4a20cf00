"""encoders/training"""
