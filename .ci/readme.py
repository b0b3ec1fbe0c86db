"README.md from nbs/index.ipynb without Quarto: `python .ci/readme.py` writes it, with --check it only tells (exit 1) if it is out of date"
import posixpath, re, sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).resolve().parents[1]
text_only = Config(NbConvertBase=dict(display_data_priority=['text/markdown', 'text/plain']))

def flags(cell): return re.findall(r'^#\s*\|\s*(\w+)', cell.source, re.M)

def from_root(m):
    "A link or image, relative to nbs/, as seen from the root"
    path = m['path'] if re.match(r'\w+:|[#/]', m['path']) else posixpath.normpath(f'nbs/{m["path"]}')
    return m['pre'] + path

def readme():
    nb = nbformat.read(root/'nbs'/'index.ipynb', as_version=4)
    nb.metadata['language_info'] = {'name': 'python'} # nbdev_clean takes it out; the fences want it
    nb.cells = [c for c in nb.cells if c.cell_type == 'markdown' or c.cell_type == 'code' and 'hide' not in flags(c)]
    for c in nb.cells:
        if c.cell_type == 'code': c.source = re.sub(r'^#\s*\|.*\n?', '', c.source, flags=re.M).strip()
        else: c.source = re.sub(r'(?P<pre>\]\(|(?:src|href)=")(?P<path>[^)"\s]+)', from_root, c.source)
    md, _ = MarkdownExporter(config=text_only).from_notebook_node(nb)
    return re.sub(r'\n{3,}', '\n\n', re.sub(r'\x1b\[[\d;]*m', '', md)).strip() + '\n'

if __name__ == '__main__':
    file, new = root/'README.md', readme()
    if '--check' not in sys.argv: file.write_text(new, encoding='utf-8')
    elif not file.exists() or file.read_text(encoding='utf-8') != new:
        sys.exit('README.md is not what nbs/index.ipynb says: run `python .ci/readme.py`')
