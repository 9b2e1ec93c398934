"""Connects a site to a federation, with one adapter per framework (Flower, NVIDIA FLARE).

Enters: a sealed message in a framework's form. Leaves: a sealed reply or a reason code in the same form.
Never: opens a sealed message, or runs code from the network.
"""
