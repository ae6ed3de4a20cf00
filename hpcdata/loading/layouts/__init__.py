"""loading/layouts"""
