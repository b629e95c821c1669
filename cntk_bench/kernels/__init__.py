"""What is computed: readouts of recursions over layers, and their definitions in float64.

`spec` describes what is computed; `convolutional` and `fully_connected` define a family of kernels each,
`definition` any readout, flips included. The definitions are slow, and no backend imports them.
"""
