"""encoders/text"""
