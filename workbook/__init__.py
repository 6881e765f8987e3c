"""What the notebooks of *The Transformer Workbook* import. It is small: read all of it.

``budget``    how much to compute: smoke, cpu or gpu
``training``  the training loop
``fused``     chapter 2's attention on PyTorch's fused kernels
``data``      number names, the Python reference; published sets, fetched once and checked
``images``    digits, CIFAR-10, folders of pictures; random crops and flips
``text``      subwords, padding, batches of similar length
``plots``     figures that read on light and dark pages
``widgets``   explorers, and the figure that stands in where no script runs
``elements``  the explorers' modules and their data, as a page or Jupyter shows them
``progress``  what you have built so far, as a picture
``results``   figures that a chapter measured, for its page and for that of all results
``record``    runs a chapter's experiment and writes what came of it, with no Jupyter
``journal``   what a run tells whoever records it
``showing``   Jupyter's display, or a stand-in
``complete``  what Colab or a JupyterHub lacks, in the versions of the lock
``blocks``    the components you wrote, carried forward from chapter to chapter
"""
