"""What the notebooks of *The Transformer Workbook* import. It is small: read all of it.

``budget``    how much to compute: smoke, cpu or gpu
``training``  the training loop
``fused``     chapter 2's attention on PyTorch's fused kernels
``data``      number names, the Python reference; published sets, fetched once and checked
``images``    digits, CIFAR-10, folders of pictures; random crops and flips
``text``      subwords, padding, batches of similar length
``plots``     figures that read on light and dark pages
``widgets``   explorers with sliders, and the figure that stands in where no kernel runs
``blocks``    the components you wrote, carried forward from chapter to chapter
"""
