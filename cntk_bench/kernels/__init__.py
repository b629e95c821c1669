"""What is computed: readouts of recursions over layers, and their definitions in float64.

`spec` names what is read; `convolutional` and `fully_connected` define a family of kernels each, `definition`
any readout, flips included. Nothing here is fast, and no backend imports a definition.
"""
