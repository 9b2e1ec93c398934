from .group import evidence as evidence
