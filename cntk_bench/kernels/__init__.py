"""What is computed: readouts of a recursion over layers, and its definition in float64.

`spec` names what is read, `convolutional` defines it; nothing here is fast, and no backend imports a
definition.
"""
