"""Runs notebooks in place, and keeps their pictures as readers will see them: `python .ci/execute.py nbs/10_padding.ipynb ...`

A picture has two pixels where it shows one, so that it is crisp on every screen. It stays small: drawings as PNG with a
palette of 256 colours, photographs and noise as JPEG."""
import base64, io, sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

LARGE = 60_000 # bytes of a picture
CRISP = "--InlineBackend.figure_formats={'retina'}"

def small(png):
    "The kind and the bytes: PNG, or, where that is large, the best JPEG that is not. Noise is large at the worst, too."
    image = Image.open(io.BytesIO(png))
    plain, dpi = image.convert('RGB'), image.info['dpi']
    def file(image, *kind, **how):
        written = io.BytesIO()
        image.save(written, *kind, dpi=dpi, **how)
        return written.getvalue()
    drawing = file(plain.quantize(256, dither=Image.Dither.NONE), 'PNG', optimize=True)
    if len(drawing) <= LARGE: return 'image/png', drawing
    photographs = [file(plain, 'JPEG', quality=quality) for quality in (80, 60, 45, 30)]
    photograph = next((f for f in photographs if len(f) <= LARGE), photographs[-1])
    return ('image/jpeg', photograph) if len(photograph) < len(drawing) else ('image/png', drawing)

def execute(path):
    nb = nbformat.read(path, as_version=4)
    NotebookClient(nb, timeout=600, extra_arguments=[CRISP], resources=dict(metadata=dict(path=path.parent))).execute()
    drawn = (o for c in nb.cells if c.cell_type == 'code' for o in c.outputs if 'image/png' in o.get('metadata', {}))
    for output in drawn: # not those that a cell shows from a file
        kind, file = small(base64.b64decode(output.data.pop('image/png')))
        output.data[kind] = base64.b64encode(file).decode()
        output.metadata[kind] = output.metadata.pop('image/png')
    nbformat.write(nb, path)

if __name__ == '__main__':
    for path in map(Path, sys.argv[1:]):
        print(path, flush=True)
        execute(path)
