"""What the notebooks of *The Transformer Workbook* import. It is small: read all of it.

``budget``    how much to compute: smoke, cpu or gpu
``training``  the training loop
``plots``     figures that read on light and dark pages
``widgets``   explorers with sliders, and the figure that stands in where no kernel runs
``blocks``    the components you wrote, carried forward from chapter to chapter
"""
