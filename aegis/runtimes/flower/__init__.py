"""The deployed runtime: coordinator, SuperLink, gateway and sites are processes, and Flower carries between them.

Flower is imported in this package alone on the platform's side. Where an interface of Flower is internal it is wrapped
once here, and a test for each fails when an upgrade moves it.
"""
