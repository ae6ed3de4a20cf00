"""encoders/image"""
