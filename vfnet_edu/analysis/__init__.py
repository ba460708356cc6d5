"""Questions asked of a trained detector: does its score rank boxes by how well they fit?"""
