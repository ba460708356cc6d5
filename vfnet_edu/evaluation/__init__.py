"""Questions asked of a trained detector: how good are its boxes, and does its score rank them?"""
