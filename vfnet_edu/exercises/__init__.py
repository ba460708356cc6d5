"""The checked exercises of the book, one module per chapter: ``exercises.chapter_06.threshold(my_threshold)``."""

from vfnet_edu.exercises import (
    chapter_00,
    chapter_01,
    chapter_02,
    chapter_03,
    chapter_04,
    chapter_05,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_09,
    chapter_10,
    chapter_11,
    chapter_12,
    chapter_13,
    chapter_14,
    chapter_18,
)

__all__ = [
    "chapter_00",
    "chapter_01",
    "chapter_02",
    "chapter_03",
    "chapter_04",
    "chapter_05",
    "chapter_06",
    "chapter_07",
    "chapter_08",
    "chapter_09",
    "chapter_10",
    "chapter_11",
    "chapter_12",
    "chapter_13",
    "chapter_14",
    "chapter_18",
]
