"""The folder of methods that bring code: `NAME.py` here is the module of the method `NAME`.

A module defines what `bench.methods.registry.MethodModule` describes. docs/add_a_method.md has a worked example.
"""
